import mnistlab_kornia

from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_kornia
    samples = 2
