"""The offline chain: folders in, folders out, with numpy and Pillow and without torch.

`files`: names and whole-or-nothing writes. `pool`: work spread over processes. `sources`: which
pictures a folder holds. `pixels`: the evaluation crop, faster. `preprocess`: pictures to input
files. `predictions`: the files that an inference tool writes; `percent_f`: their text, read fast.
`ranking`: at which place the right class comes. `mappings`: labels that are numbered otherwise
than the outputs. `scores`: from predictions and labels to an accuracy.
"""
