"""The route that shows the use of keys."""

from llama_orch.contracts.keys import USAGE_PATH, UsageList
from llama_orch.http.server.routes import json_reply, route
from queen_rbee.keys.keyring import Keyring


class UsageRoutes:
    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    @route(
        "GET",
        USAGE_PATH,
        "Show the use of keys",
        {200: json_reply("The use of all keys; to a user's key, its own.", UsageList)},
    )
    async def show_usage(self) -> UsageList:
        return UsageList(keys=self._keys.usage())
