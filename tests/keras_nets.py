"""The networks in Keras, each written from its table: what the PyTorch ones are measured against.

Comments give the output's height and width. Import it with KERAS_BACKEND=torch.
"""

import keras
from keras.layers import (
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    ReLU,
    SeparableConv2D,
)


def mnist_wide() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(32, 3), ReLU()),  # 26
            *(Conv2D(64, 3), ReLU()),  # 24
            *(Conv2D(128, 3), ReLU()),  # 22
            MaxPooling2D(2),  # 11
            *(Conv2D(32, 1), ReLU()),
            *(Conv2D(64, 3), ReLU()),  # 9
            *(Conv2D(128, 3), ReLU()),  # 7
            *(Conv2D(32, 1), ReLU()),
            Conv2D(10, 7),  # 1
            Flatten(),
        ]
    )


def mnist_plain() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(32, 3), ReLU()),  # 26
            *(Conv2D(32, 3), ReLU()),  # 24
            MaxPooling2D(2),  # 12
            *(Conv2D(32, 3), ReLU()),  # 10
            MaxPooling2D(2),  # 5
            *(Conv2D(10, 1), ReLU()),
            Conv2D(10, 5),  # 1
            Flatten(),
        ]
    )


def mnist_sep() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(16, 3), ReLU(), BatchNormalization()),  # 26
            *(Conv2D(32, 3), ReLU(), BatchNormalization()),  # 24
            *(Conv2D(16, 1), ReLU()),
            MaxPooling2D(2),  # 12
            *(SeparableConv2D(16, 3), ReLU(), BatchNormalization()),  # 10
            *(Conv2D(16, 3), ReLU()),  # 8
            *(SeparableConv2D(16, 3), ReLU(), BatchNormalization()),  # 6
            *(Conv2D(16, 3), ReLU(), BatchNormalization()),  # 4
            *(Conv2D(10, 4), BatchNormalization()),  # 1
            Flatten(),
        ]
    )


def mnist_dropout() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 26
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 24
            *(Conv2D(10, 1), ReLU()),
            MaxPooling2D(2),  # 12
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 10
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 8
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 6
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(0.1)),  # 4
            *(Conv2D(10, 4), BatchNormalization(), Dropout(0.1)),  # 1
            Flatten(),
        ]
    )


def mnist_taper() -> keras.Sequential:
    return _taper(16, 16, 16, 10, dropout=0.1)


def mnist_taper_small() -> keras.Sequential:
    return _taper(10, 10, 8, 8, dropout=0.05)  # its source says no more than "less dropout"


def _taper(*channels: int, dropout: float) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(16, 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 26
            *(Conv2D(32, 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 24
            MaxPooling2D(2),  # 12
            *(Conv2D(10, 1), ReLU()),
            *(Conv2D(channels[0], 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 10
            *(Conv2D(channels[1], 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 8
            *(Conv2D(channels[2], 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 6
            *(Conv2D(channels[3], 3), ReLU(), BatchNormalization(), Dropout(dropout)),  # 4
            *(Conv2D(10, 4), BatchNormalization()),  # 1
            Flatten(),
        ]
    )


def mnist_narrow() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(8, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 26
            *(Conv2D(8, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 24
            *(Conv2D(8, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 22
            MaxPooling2D(2),  # 11
            *(Conv2D(8, 1, use_bias=False), ReLU()),
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 9
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.092)),  # 7
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 5
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.098)),  # 3
            *(Conv2D(10, 3, use_bias=False), BatchNormalization()),  # 1
            Flatten(),
        ]
    )


def mnist_narrow_early_pool() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 26
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 24
            MaxPooling2D(2),  # 12
            *(Conv2D(10, 1, use_bias=False), ReLU()),
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 10
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 8
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 6
            *(Conv2D(10, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 4
            *(Conv2D(10, 4, use_bias=False), BatchNormalization()),  # 1
            Flatten(),
        ]
    )


def mnist_squeeze() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(Conv2D(32, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.1)),  # 26
            *(Conv2D(10, 1, use_bias=False), ReLU()),
            *(Conv2D(32, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.2)),  # 24
            *(Conv2D(10, 1, use_bias=False), ReLU()),
            MaxPooling2D(2),  # 12
            *(Conv2D(16, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.2)),  # 10
            *(Conv2D(10, 1, use_bias=False), ReLU()),
            *(Conv2D(16, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.2)),  # 8
            *(Conv2D(16, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.2)),  # 6
            *(Conv2D(16, 3, use_bias=False), ReLU(), BatchNormalization(), Dropout(0.2)),  # 4
            *(Conv2D(10, 4, use_bias=False), BatchNormalization()),  # 1
            Flatten(),
        ]
    )


def mnist_micro() -> keras.Sequential:
    def layer() -> tuple[keras.Layer, ...]:
        return SeparableConv2D(16, 3, use_bias=False), ReLU(), BatchNormalization()

    before = [Conv2D(8, 3, use_bias=False), ReLU(), BatchNormalization(), *layer(), MaxPooling2D(2)]  # 26, 24, 12
    after = [*layer(), *layer(), *layer(), *layer()]  # 10, 8, 6, 4
    return keras.Sequential([keras.Input((28, 28, 1)), *before, *after, GlobalAveragePooling2D(), Dense(10)])


def mnist_residual() -> keras.Model:
    images = keras.Input((28, 28, 1))
    maps = MaxPooling2D(2)(block(block(images, 16), 32))  # 14
    maps = Add()([maps, block(block(maps, 32), 32)])
    maps = MaxPooling2D(2)(block(maps, 64))  # 7
    maps = Add()([maps, block(block(maps, 64), 64)])
    return keras.Model(images, Dense(10)(GlobalAveragePooling2D()(maps)))


def cifar_base() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *(Conv2D(48, 3, padding="same"), ReLU()),  # 32
            *(Conv2D(48, 3), ReLU()),  # 30
            *(MaxPooling2D(2), Dropout(0.25)),  # 15
            *(Conv2D(96, 3, padding="same"), ReLU()),  # 15
            *(Conv2D(96, 3), ReLU()),  # 13
            *(MaxPooling2D(2), Dropout(0.25)),  # 6
            *(Conv2D(192, 3, padding="same"), ReLU()),  # 6
            *(Conv2D(192, 3), ReLU()),  # 4
            *(MaxPooling2D(2), Dropout(0.25)),  # 2
            Flatten(),  # 768 features
            *(Dense(512), ReLU(), Dropout(0.5)),
            *(Dense(256), ReLU(), Dropout(0.5)),
            Dense(10),
        ]
    )


def cifar_sep() -> keras.Sequential:
    """Its source states no dropout: 0.1 and 0.25 are a guess."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *(SeparableConv2D(64, 3, padding="same"), BatchNormalization(), ReLU(), Dropout(0.1)),  # 32
            *(SeparableConv2D(64, 3), BatchNormalization(), ReLU(), Dropout(0.1)),  # 30
            MaxPooling2D(2),  # 15
            *(SeparableConv2D(64, 3, padding="same"), BatchNormalization(), ReLU(), Dropout(0.1)),  # 15
            *(SeparableConv2D(128, 3), BatchNormalization(), ReLU(), Dropout(0.1)),  # 13
            MaxPooling2D(2),  # 6
            *(SeparableConv2D(128, 3, padding="same"), BatchNormalization(), ReLU(), Dropout(0.1)),  # 6
            *(SeparableConv2D(128, 3), BatchNormalization(), ReLU(), Dropout(0.1)),  # 4
            GlobalAveragePooling2D(),
            *(Dense(256), BatchNormalization(), ReLU(), Dropout(0.25)),
            Dense(10),
        ]
    )


def cifar_plain() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *(Conv2D(24, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),  # 32
            *(Conv2D(24, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            *(Conv2D(24, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            MaxPooling2D(2),  # 16
            *(Conv2D(40, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            *(Conv2D(40, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            *(Conv2D(40, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            MaxPooling2D(2),  # 8
            *(Conv2D(56, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            *(Conv2D(56, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()),
            GlobalAveragePooling2D(),
            Dense(10),
        ]
    )


def cifar_convnext() -> keras.Model:
    def stage(maps: keras.KerasTensor, blocks: int) -> keras.KerasTensor:
        filters = maps.shape[-1]
        for _ in range(blocks):
            narrower = BatchNormalization()(
                Conv2D(filters, 1, use_bias=False)(block(maps, 2 * filters, SeparableConv2D))
            )
            maps = Add()([maps, narrower])
        return maps

    images = keras.Input((32, 32, 3))
    maps = stage(block(images, 24), 2)
    maps = stage(MaxPooling2D(2)(block(maps, 48, SeparableConv2D)), 4)  # 16
    maps = stage(MaxPooling2D(2)(block(maps, 72, SeparableConv2D)), 2)  # 8
    return keras.Model(images, Dense(10)(GlobalAveragePooling2D()(maps)))


def cifar_resnet9() -> keras.Model:
    images = keras.Input((32, 32, 3))
    maps = MaxPooling2D(2)(block(block(images, 32), 64))  # 16
    maps = Add()([maps, block(block(maps, 64), 64)])
    maps = MaxPooling2D(2)(block(maps, 128))  # 8
    maps = MaxPooling2D(2)(block(maps, 256))  # 4
    maps = Add()([maps, block(block(maps, 256), 256)])
    return keras.Model(images, Dense(10)(GlobalAveragePooling2D()(maps)))


def block(maps: keras.KerasTensor, filters: int, kernels: type = Conv2D) -> keras.KerasTensor:
    """Of the residual networks."""
    maps = kernels(filters, 3, padding="same", use_bias=False)(maps)
    return ReLU()(BatchNormalization()(maps))
