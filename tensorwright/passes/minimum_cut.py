"""The cheapest way to part a network in two: Dinic's algorithm for maximum flow.

    n = Network(); n.edge(n.SOURCE, "a", 3); n.edge("a", n.SINK, 1); n.cut()   ->   {"a"}

An edge (u, v, c) costs c if u ends on the source's side and v on the sink's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = 1 << 62


class Network:
    SOURCE, SINK = "source", "sink"

    def __init__(self):
        self.index: dict[Hashable, int] = {self.SOURCE: 0, self.SINK: 1}
        self.out: list[list[int]] = [[], []]  # numbers of the edges that leave a node
        self.head: list[int] = []  # where an edge leads; edge e ^ 1 is its reverse
        self.room: list[int] = []

    def node(self, key: Hashable) -> int:
        if key not in self.index:
            self.index[key] = len(self.out)
            self.out.append([])
        return self.index[key]

    def edge(self, u: Hashable, v: Hashable, cost: int = INFINITE) -> None:
        a, b = self.node(u), self.node(v)
        for start, end, room in ((a, b, cost), (b, a, 0)):
            self.out[start].append(len(self.head))
            self.head.append(end)
            self.room.append(room)

    def cut(self) -> set[Hashable]:
        """The source's side of a cheapest cut: the largest, where there are several."""
        while (level := self._levels()) is not None:
            self._block(level)
        behind = self._reaching_sink()
        return {k for k, n in self.index.items() if n not in behind} - {self.SOURCE}

    def _levels(self) -> list[int] | None:
        level = [-1] * len(self.out)
        level[0] = 0
        queue = deque([0])
        while queue:
            u = queue.popleft()
            for e in self.out[u]:
                v = self.head[e]
                if self.room[e] > 0 and level[v] < 0:
                    level[v] = level[u] + 1
                    queue.append(v)
        return level if level[1] >= 0 else None

    def _block(self, level: list[int]) -> None:
        """Saturate paths along rising levels; a walk with its own stack."""
        next_edge = [0] * len(self.out)
        path: list[int] = []
        u = 0
        while True:
            if u == 1:
                least = min(self.room[e] for e in path)
                for e in path:
                    self.room[e] -= least
                    self.room[e ^ 1] += least
                path, u = [], 0
                continue
            e = self._advance(u, level, next_edge)
            if e is not None:
                path.append(e)
                u = self.head[e]
            elif path:
                level[u] = -1
                u = self.head[path.pop() ^ 1]
            else:
                return

    def _advance(self, u: int, level: list[int], next_edge: list[int]) -> int | None:
        edges = self.out[u]
        while next_edge[u] < len(edges):
            e = edges[next_edge[u]]
            if self.room[e] > 0 and level[self.head[e]] == level[u] + 1:
                return e
            next_edge[u] += 1
        return None

    def _reaching_sink(self) -> set[int]:
        seen, queue = {1}, deque([1])
        while queue:
            v = queue.popleft()
            for e in self.out[v]:
                u = self.head[e]
                if self.room[e ^ 1] > 0 and u not in seen:
                    seen.add(u)
                    queue.append(u)
        return seen
