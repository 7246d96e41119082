"""Ports for servers that a check starts."""

import itertools
import random
import socket

# below those that the system gives to connections: one of these could take a port first
PORTS = range(20_000, 32_000)


def is_free(port):
    """Whether nothing listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def free_ports(count):
    """So many different ports that nothing listens on."""
    return list(itertools.islice(filter(is_free, random.sample(PORTS, len(PORTS))), count))
