"""The pages for people: set up a community, try it, see what it said and why. Rendered here, without a build step."""

# Each puts its routes on the blueprint.
import routes.dashboard.activity
import routes.dashboard.administration
import routes.dashboard.communities
import routes.dashboard.numbers
import routes.dashboard.oidc
import routes.dashboard.playground
import routes.dashboard.settings
import routes.dashboard.signing  # noqa: F401
from routes.dashboard.room import blueprint

__all__ = ["blueprint"]
