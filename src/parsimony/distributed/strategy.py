"""Lightning's DDP with our own start, meeting and end of its processes in the place of Lightning's."""

import signal
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import ClusterEnvironment
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.strategies.launchers.launcher import _Launcher

from parsimony.distributed.group import Group


class Environment(ClusterEnvironment):
    """Tells Lightning what the group knows."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group
        self.world = 1
        self.sees: dict[str, Any] = {}  # what all processes have to see alike before they train

    @property
    def creates_processes_externally(self) -> bool:
        return True  # for Lightning, whoever does it

    @property
    def main_address(self) -> str:
        return self.group.here.address if self.group.here else "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self.group.here.port if self.group.here else 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.group.here.world if self.group.here else self.world

    def set_world_size(self, size: int) -> None:
        self.world = size

    def global_rank(self) -> int:
        return self.group.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.group.here.local_rank if self.group.here else 0

    def node_rank(self) -> int:
        return self.group.here.machine if self.group.here else 0


class SlurmEnvironment(Environment, SLURMEnvironment):
    """The same, known to Lightning as Slurm's: it puts a job that gets SIGUSR1 back into the queue."""

    def __init__(self, group: Group) -> None:
        Environment.__init__(self, group)
        self.auto_requeue = True
        self.requeue_signal = signal.SIGUSR1

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: the group has compared them with what started the processes."""


def environment_of(group: Group) -> Environment:
    return SlurmEnvironment(group) if SLURMEnvironment.detect() else Environment(group)


class Launcher(_Launcher):
    """The processes meet before the first thing that they do together."""

    def __init__(self, strategy: "Ddp") -> None:
        self.strategy = strategy

    @property
    def is_interactive_compatible(self) -> bool:
        return False

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("trainer", None)
        strategy, environment = self.strategy, self.strategy.cluster_environment
        assert isinstance(environment, Environment)
        backend = strategy._get_process_group_backend()
        environment.group.meet(strategy.world_size, backend, strategy.root_device, environment.sees)
        return function(*args, **kwargs)

    def kill(self, signum: Any) -> None:
        """Nothing: the group ends its processes."""


class Ddp(DDPStrategy):
    """Running statistics of batch norm stay each process's own in training, which saves a broadcast a step.

    Rank 0's are those that are kept; `Together` hands them round before an epoch is scored.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"broadcast_buffers": False, **keywords})

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self)


class Together(Callback):
    """The last of the callbacks. All processes score the same network, and end where one of them has."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.group.on_sigterm()  # Lightning's handler, set before, would broadcast in the midst of other collectives

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.group.on_sigterm()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.group.check()

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self.group.check()

    def on_test_batch_end(self, *arguments: Any) -> None:
        self.group.check()


def register() -> None:
    """Has Lightning take `Ddp` for strategy=ddp, and for auto where there are several devices."""
    StrategyRegistry.register("ddp", Ddp, override=True, description="DDP whose processes end together")
