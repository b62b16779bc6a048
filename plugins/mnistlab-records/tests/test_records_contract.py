import mnistlab_records

from mnistlab.api import ImageShape
from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_records
    samples = 2
    # Large enough for M7's last kernel, and too small for it; the sizes of real sets are in test_records.py.
    shapes = (ImageShape(1, 20, 20, 10), ImageShape(3, 8, 8, 7))
