"""The notions in the order they are read, shown on a trained network and the data that it was trained on."""

from torch import nn

from parsimony.errors import InputError
from parsimony.explain.document import Section
from parsimony.explain.layers import stages
from parsimony.explain.maps import activation, feature_maps, receptive_field
from parsimony.explain.progress import answers, epochs, mistakes, whole
from parsimony.explain.weights import convolution, kernels, one_by_one, three_by_three
from parsimony.trained import Trained

MEASURED_ON = 32  # test images, that the receptive field is measured on


def sections(trained: Trained, picture: int | None = None) -> list[Section]:
    """On test image number `picture`, by default the first that is answered rightly. Raises InputError."""
    data = trained.data()
    data.prepare_data()
    data.setup()
    assert data.images is not None
    test = data.images.test
    if picture is not None and not 0 <= picture < len(test.labels):
        raise InputError(f"There is no test image {picture}: {data.images.name} has 0 to {len(test.labels) - 1}.")
    logits = answers(trained, test.images)
    if picture is None:
        picture = int((logits.argmax(1) == test.labels).int().argmax())
    image, label = test.images[picture], int(test.labels[picture])
    net, initial = trained.net, trained.initial()
    found = stages(net, image[None])
    if not any(isinstance(stage.module, nn.Conv2d) for stage in found):
        raise InputError(f"{trained.name} has no convolution, and it is convolutions that are explained.")
    return [
        whole(trained, data, image, label, logits, test),
        convolution(image, found),
        kernels(net, initial, trained.config["seed"]),
        three_by_three(net, initial),
        one_by_one(net, initial, found),
        activation(found),
        feature_maps(found, trained.classes),
        receptive_field(net, image, test.images[:MEASURED_ON]),
        epochs(trained, data),
        mistakes(trained, logits, test),
    ]
