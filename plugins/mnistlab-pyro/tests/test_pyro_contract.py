import mnistlab_pyro
import pytest

from mnistlab.testing import PluginContract


class TestContract(PluginContract):
    plugin = mnistlab_pyro
    samples = 2


@pytest.mark.chaos
class TestManyPoints(PluginContract):
    plugin = mnistlab_pyro
