"""``python -m pegbox``."""

from pegbox.cli import main

raise SystemExit(main())
