"""The command line: `hf-synth`."""

try:
    from hf_synth.cli.cli import main as main
except KeyboardInterrupt:  # stopped while modules are imported: no traceback
    raise SystemExit(130) from None
