"""Nets made of linear layers, read off their autograd graph and differentiated by hand.

From the outputs of a forward pass down, the graph is made of linear layers, elementwise functions
and sums: then cotangents of many tasks go down it together, one matrix product a layer, and
tangents go up it. What is read is the graph of this very pass, not the module: a layer used
twice, a tied weight or a functional call cannot be mistaken for something else.
"""

from mtlsk.linear_graph.columns import Columns
from mtlsk.linear_graph.cotangent import Cotangent
from mtlsk.linear_graph.graph import LinearGraph
from mtlsk.linear_graph.reading import LEAF, Layer, Unrecognised, leaves_beside, read_node
from mtlsk.linear_graph.workspace import Workspace

__all__ = [
    "LEAF",
    "Columns",
    "Cotangent",
    "Layer",
    "LinearGraph",
    "Unrecognised",
    "Workspace",
    "leaves_beside",
    "read_node",
]
