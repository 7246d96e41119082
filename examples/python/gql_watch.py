"""Subscribes with the package gql and its default options. It does not reconnect: the kit does."""

import asyncio
import os

from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

url = os.environ.get("JOBGATE_URL", "http://127.0.0.1:8080")
key = os.environ.get("JOBGATE_KEY")

request = gql(
    """
    subscription Watch($refs: [JobRef!]!) {
      jobUpdates(refs: $refs) {
        isFinal
        result {
          ... on Job { id state progress { completed total } }
          ... on JobProblem { code message }
        }
      }
    }
    """
)
request.variable_values = {"refs": [{"external": {"source": "marketing", "externalId": "demo_sales_2026"}}]}


async def main():
    transport = WebsocketsTransport(
        url=f"{url.replace('http', 'ws')}/graphql",
        init_payload={"authorization": f"Bearer {key}"} if key else {},
    )
    async with Client(transport=transport) as session:
        async for data in session.subscribe(request):
            result = data["jobUpdates"]["result"]
            print(result.get("state") or result["message"], flush=True)


asyncio.run(main())
