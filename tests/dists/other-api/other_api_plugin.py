"""Written for an API that this mnistlab does not speak."""

import os
from pathlib import Path

if "MNISTLAB_TEST_MARK" in os.environ:
    Path(os.environ["MNISTLAB_TEST_MARK"]).touch()  # whoever imports this module can be found out
