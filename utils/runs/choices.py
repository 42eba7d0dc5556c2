"""The words that options choose from: names of what the other rooms do.

They stand alone so that a command line is parsed, and a typo answered, before torch is imported.
"""

OF_WEIGHTS = ("l1", "l2", "fpgm", "first")  # they look at a layer's own weight alone
RANK_CRITERIA = ("rank", "reverse_rank")
CRITERIA = (*RANK_CRITERIA, *OF_WEIGHTS, "input_norm", "bn_scale", "random")
BLIND_CRITERIA = ("first", "random")  # they look at nothing of the network
ON_OFF = ("on", "off")
ALLOCATIONS = ("uniform", "global", "sensitivity")
SITES = ("official", "conv", "read")  # where maps are ranked
LAYOUTS = ("hrank", "hrankplus")  # of compress rates
RUNTIMES = ("eager", "compile", "onnxruntime", "openvino")
BEST_FORMATS = {"eager": "pt2", "onnxruntime": "onnx", "openvino": "onnx"}  # of a runtime
FORMATS = ("pt2", "onnx")  # of exported networks, by the ending of the file's name
