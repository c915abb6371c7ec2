"""What TensorRT 10 takes: its list of operators, and where an ONNX model departs from it.

The list is that of the ONNX parser of TensorRT 10.15: the operators marked "Y" in the support matrix of
onnx/onnx-tensorrt, docs/operators.md.
"""

from collections.abc import Iterator, Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

LARGEST_RANK = 5
NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BlackmanWindow
    Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization GRU
    HammingWindow HannWindow HardSigmoid HardSwish Hardmax
    Identity If ImageScaler InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool
    MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul
    Neg NonMaxSuppression NonZero Not
    OneHot Or
    Pad ParametricSoftplus Pow PRelu
    QuantizeLinear
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RMSNormalization RNN RoiAlign RotaryEmbedding Round
    STFT ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum
    Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Upsample
    Where
    Xor
"""
OPERATORS = frozenset(NAMES.split())


def departures(model: ModelProto) -> list[str]:
    """What keeps a model from being a gather form for TensorRT, in words.

    An operator that TensorRT lacks, a GridSample (which it has, but other runtimes lack), a tensor of more than
    `LARGEST_RANK` axes or of an unknown number of them, a tensor in float64 (which it makes float32).
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = model.graph
    found = [word for node in graph.node for word in _of_node(node)]
    values = [*graph.input, *graph.output, *graph.value_info]
    ranks = {value.name: _rank(value) for value in values}
    doubles = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    for weight in graph.initializer:
        ranks[weight.name] = len(weight.dims)
        if weight.data_type == TensorProto.DOUBLE:
            doubles.add(weight.name)
    for name in (name for node in graph.node for name in node.output if name):
        ranks.setdefault(name, None)
    found += [f"{name} has an unknown rank" if rank is None else f"{name} has rank {rank}"
              for name, rank in ranks.items() if rank is None or rank > LARGEST_RANK]
    return [*found, *(f"{name} is in float64" for name in sorted(doubles))]


def _of_node(node: NodeProto) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        yield f"{node.name} is a {node.op_type}, which TensorRT lacks"
    elif node.op_type == "GridSample":
        yield f"{node.name} is a GridSample"
    for graph in _subgraphs(node.attribute):
        yield f"{node.name} has a graph of its own, {graph}, which is not looked into"


def _subgraphs(attributes: Sequence[onnx.AttributeProto]) -> list[str]:
    return [attribute.name for attribute in attributes
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)]


def _rank(value: ValueInfoProto) -> int | None:
    tensor = value.type.tensor_type
    return len(tensor.shape.dim) if tensor.HasField("shape") else None
