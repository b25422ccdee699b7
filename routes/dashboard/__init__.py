"""The pages for people: set up a community, try it, see what it said and why. Rendered here, without a build step."""

from routes.dashboard import activity, administration, communities, numbers, oidc, playground, settings, signing
from routes.dashboard.room import blueprint

__all__ = [
    "activity",
    "administration",
    "blueprint",
    "communities",
    "numbers",
    "oidc",
    "playground",
    "settings",
    "signing",
]
