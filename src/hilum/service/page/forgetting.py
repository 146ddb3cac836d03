"""Forget the images of a session some time after its browser has gone, whatever Streamlit still keeps of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

FORGET_AFTER = 120
"""Seconds for which a browser that lost the connection may come back."""
_EVERY = 5.0


class Forgetful(Protocol):
    """What has something to forget."""

    def clear(self) -> None:
        """Forget it."""


class Forgetting:
    """Sessions by Streamlit's name for them, and when each was last seen with a browser."""

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[str, Forgetful] = WeakValueDictionary()
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def enter(self, name: str, session: Forgetful, now: float | None = None) -> None:
        """A session that is here now."""
        with self._lock:
            self._sessions[name] = session
            self._seen[name] = time.monotonic() if now is None else now

    def sweep(self, is_here: Callable[[str], bool], now: float) -> None:
        """Have those forget that have been away for FORGET_AFTER seconds."""
        with self._lock:
            for name in list(self._seen):
                if is_here(name):
                    self._seen[name] = now
                elif now - self._seen[name] >= FORGET_AFTER:
                    del self._seen[name]
                    session = self._sessions.pop(name, None)
                    if session is not None:
                        session.clear()

    def start(self) -> None:
        """Sweep from now on, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="hilum-forgetting", daemon=True).start()

    def _run(self) -> None:
        from streamlit.runtime import exists, get_instance

        while True:
            time.sleep(_EVERY)
            if exists():
                self.sweep(get_instance().is_active_session, time.monotonic())


FORGETTING = Forgetting()
"""That of the process."""
