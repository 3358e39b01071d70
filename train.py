"""Train one network, or a sweep of them: `python train.py --help` shows how."""

# ruff: noqa: E402 (Ctrl-C before all else)
from parsimony.interrupts import end_at_once, raise_again

end_at_once()

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

from parsimony.config import check
from parsimony.distributed.place import is_rank_zero, rank_zero_first, run_id
from parsimony.resume import config_to_run
from parsimony.runs import finished, refusal_recorded
from parsimony.sentences import one_sentence_errors
from parsimony.sweeps.job import in_sweep, take_out_sweep, train_apart
from parsimony.sweeps.start import past_hydra, told_of

# Threads that wait for each other in PyTorch (OpenMP's, by GCC) spin for milliseconds; beside another busy process they
# spin away the time of the one they wait for. Fewer turns cost little alone. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Names the run's folder. The processes that a run starts inherit it, and so share the folder.
if "RUN_ID" not in os.environ:
    with one_sentence_errors():
        os.environ["RUN_ID"] = run_id()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """The value handed to a sweeper is the best validation accuracy."""
    if in_sweep():
        return train_apart(cfg)
    with past_hydra(), refusal_recorded(cfg):
        check(cfg)
        take_out_sweep(cfg)
        cfg = config_to_run(cfg)
        if result := finished(Path(cfg.folder)):
            if is_rank_zero():
                print(f"{result.table()}\nThis run is complete: {cfg.folder}")
            return result.best_validation_accuracy
        from parsimony.training import train  # takes seconds to import, so after the checks

        raise_again()
        return train(cfg).best_validation_accuracy


if __name__ == "__main__":
    with one_sentence_errors(), rank_zero_first(), told_of():
        main()
