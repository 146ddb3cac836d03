"""The page, ``hilum app``: images, answers and evidence in a browser; needs the ``serve`` extra.

``run.py`` starts Streamlit on ``main.py``, which draws the page (``shell.py``, ``menu.py``, ``dialogs.py``) anew for
every event of a session. What a session holds is in ``session.py`` and ``films.py``, and ``forgetting.py`` ends it;
``regions.py``, ``viewing.py``, ``rows.py``, ``gallery.py``, ``downloads.py`` and ``documents.py`` turn it into what is
shown or saved and know nothing of Streamlit; ``assets/`` is what runs in the browser, mounted by ``browser.py``.
"""
