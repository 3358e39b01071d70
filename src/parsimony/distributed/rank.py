"""`python -m parsimony.distributed.rank`: a process that rank 0 started. Its config comes through standard input."""

import json
import sys

from omegaconf import OmegaConf

from parsimony.sentences import one_sentence_errors

if __name__ == "__main__":
    with one_sentence_errors():
        config = json.load(sys.stdin)
        from parsimony.training import train  # takes seconds to import

        train(OmegaConf.create(config))
