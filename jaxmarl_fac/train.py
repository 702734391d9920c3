"""`python -m jaxmarl_fac.train` trains from any folder; its flags are those of `experiments/train.py`."""

from jaxmarl_fac.__main__ import run

if __name__ == "__main__":
    run("train")
