"""python -m restorer"""

from restorer.apps.cli import entry

entry()
