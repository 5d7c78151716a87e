"""Find the shortcut before the customer does: classes recognised by what is not the class.

print(kvis2.audit(model, images, labels))
"""

from kvis2.shortcuts.auditing import LIFT, Audit, Finding, audit
from kvis2.shortcuts.causes import Causes, Share
from kvis2.shortcuts.grouping import Group
from kvis2.shortcuts.places import Place

__all__ = ["LIFT", "Audit", "Causes", "Finding", "Group", "Place", "Share", "audit"]
