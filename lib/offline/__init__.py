"""The offline chain: folders in, folders out, with numpy and Pillow and without torch.

`pixels`: the evaluation crop, faster. `preprocess`: pictures to input files, `uint8_bins` for AIPP;
`record`: of what they are made; `recipe_options`: how, on the command line; `ais_bench`: what that
tool takes. `predictions`: the files that an inference tool writes, with `npy` headers, the
`element_type` of raw ones and `copies` of several devices; `percent_f`: their text, read fast.
`ranking`: at which place the right class comes. `mappings`: labels that are numbered otherwise than
the outputs. `scores`: from predictions and labels to an accuracy. `labels`: from class folders to
a label file. `pool`: work spread over processes.
"""
