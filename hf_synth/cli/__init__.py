"""The command line: `hf-synth`."""

from hf_synth.cli.cli import main as main
