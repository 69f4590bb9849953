"""Margin of one owner over several protocols: what each asks, what all ask, and what transfers allow.

Ours, and not from literature: the transfer-constrained requirement C, the recognised offset, the causal
requirement over paths and the capital placed at a protocol being at most what the protocol needs alone. From
literature, by reference: netting lost between several clearing houses (Duffie and Zhu 2011, Cont and Kokholm
2014), venues that each see only their slice (Glasserman, Moallemi and Yuan 2016). The figures of the link
classes are starting points that nobody calibrated [R].

`excess` says what a protocol has above its requirement, `scenarios` what the world may do, `links` how money
moves, `programme` the least capital over scenarios, `paths` over time, `account` all of it side by side.
See docs/cross-margin.md.
"""

from __future__ import annotations
