import mnistlab_pyro

from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_pyro
    samples = 2
