"""Observers among the plugins: each is told, aside, of every trial that ends, and none can hold up a search."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

from mnistlab.api import TrialRecord
from mnistlab.plugins.registry import Plugin, Registry, say

CLOSE_SECONDS = 10.0  # that all observers together are waited for when the search has no more to tell


class Observers:
    """The observers of one search; a stranger's code, so that whatever it raises is its own and nobody else's."""

    def __init__(self, registry: Registry) -> None:
        """Tell those of the plugins that have the hook `mnistlab_trial_finished`."""
        self._each = [_Observer(plugin) for plugin in registry.plugins if _observes(plugin)]

    def tell(self, trial: TrialRecord) -> Iterator[str]:
        """Tell all of a trial that has ended; yield in words what has gone wrong with any since the last time."""
        for one in self._each:
            one.tell(trial)
        yield from self._troubles()

    def close(self) -> Iterator[str]:
        """Wait until all have heard everything, but not for ever; yield in words what has gone wrong."""
        deadline = time.monotonic() + CLOSE_SECONDS
        late = [one for one in self._each if not one.ends(deadline)]
        yield from self._troubles()
        for one in late:
            yield f"{one.title}: mnistlab_trial_finished has not returned, and is left behind"

    def _troubles(self) -> Iterator[str]:
        for one in self._each:
            yield from (f"{one.title}: mnistlab_trial_finished raised {trouble}" for trouble in one.troubles())


def _observes(plugin: Plugin) -> bool:
    return plugin.manager is not None and bool(plugin.manager.hook.mnistlab_trial_finished.get_hookimpls())


class _Observer:
    """One of them in a thread of its own, which takes one trial after the other."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin, self.title = plugin, plugin.title
        self._trials, self._raised = SimpleQueue[TrialRecord | None](), SimpleQueue[str]()
        self._thread: threading.Thread | None = None

    def tell(self, trial: TrialRecord) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"mnistlab-{self.title}", daemon=True)
            self._thread.start()
        self._trials.put(trial)

    def ends(self, deadline: float) -> bool:
        """Return whether it has heard everything before the monotonic clock passes `deadline`."""
        if self._thread is None:
            return True
        self._trials.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def troubles(self) -> Iterator[str]:
        """Yield what it has raised since the last time."""
        while True:
            try:
                yield self._raised.get_nowait()
            except Empty:
                return

    def _run(self) -> None:
        assert self._plugin.manager is not None
        while (trial := self._trials.get()) is not None:
            try:
                self._plugin.manager.hook.mnistlab_trial_finished(trial=trial)
            except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - any error is the plugin's own
                self._raised.put(say(error))
