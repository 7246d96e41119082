"""Subscribes with the Python package gql, as published and with its default options, and prints one JSON line an answer and
one at the end. Usage: subscribe.py gql-websockets|gql-aiohttp URL QUERY VARIABLES [AUTHORIZATION]"""

import asyncio
import json
import sys

from gql import Client, gql
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport

TRANSPORTS = {"gql-websockets": WebsocketsTransport, "gql-aiohttp": AIOHTTPWebsocketsTransport}


def say(line):
    print(json.dumps(line), flush=True)


async def main(transport, url, query, variables, authorization=None):
    options = {"init_payload": {"authorization": authorization}} if authorization else {}
    request = gql(query)
    request.variable_values = json.loads(variables)
    try:
        async with Client(transport=TRANSPORTS[transport](url=f"ws://{url}", **options)) as session:
            async for data in session.subscribe(request):
                say({"data": data})
        say({"end": "complete"})
    except TransportError as error:
        errors = [one["extensions"]["code"] for one in getattr(error, "errors", None) or []]
        cause = error.__cause__
        say({"end": "error", "errors": errors, "why": f"{error} {cause}"})


asyncio.run(main(*sys.argv[1:]))
