"""ONNX Runtime's own operators on boxes, which agree with torchvision's: graphs of one operator each."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e .[test]")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e .[test]")

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def answer(node, inputs: dict[str, np.ndarray], kind: int) -> np.ndarray:
    """What a node with the output `result` makes of its inputs."""
    described = [onnx.helper.make_tensor_value_info(*_described(name, value)) for name, value in inputs.items()]
    result = onnx.helper.make_tensor_value_info("result", kind, None)
    graph = onnx.helper.make_graph([node], "one", described, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 16)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def _described(name: str, value: np.ndarray) -> tuple[str, int, tuple[int, ...]]:
    return name, INT64 if value.dtype == np.int64 else FLOAT, value.shape


def roi_align(x: np.ndarray, boxes: np.ndarray, side: int, scale: float) -> np.ndarray:
    """(H, W, C) and (R, 4) to (R, side, side, C): aligned, with as many samples as the RoI is large."""
    node = onnx.helper.make_node(
        "RoiAlign",
        ["x", "boxes", "images"],
        ["result"],
        mode="avg",
        output_height=side,
        output_width=side,
        sampling_ratio=0,
        spatial_scale=scale,
        coordinate_transformation_mode="half_pixel",
    )
    images = np.zeros(len(boxes), np.int64)
    inputs = {"x": np.ascontiguousarray(x.transpose(2, 0, 1)[None]), "boxes": boxes, "images": images}
    return answer(node, inputs, FLOAT).transpose(0, 2, 3, 1)


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """(class, number) of what is kept of boxes (N, 4) by scores (C, N), within each class."""
    node = onnx.helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "threshold"], ["result"])
    inputs = {
        "boxes": boxes[None],
        "scores": scores[None],
        "most": np.asarray([len(boxes)], np.int64),
        "threshold": np.asarray([threshold], np.float32),
    }
    return [(int(label), int(number)) for _, label, number in answer(node, inputs, INT64)]
