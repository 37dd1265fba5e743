"""`python -m hf_synth.cli`, the same as `hf-synth`."""

import sys

from hf_synth.cli.cli import main

sys.exit(main())
