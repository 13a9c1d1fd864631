"""The nine published networks, which oracles know; ARCHS may have more."""

PUBLISHED = (
    "hrnet_w18_small_v1",
    "hrnet_w18_small_v2",
    "hrnet_w18",
    "hrnet_w30",
    "hrnet_w32",
    "hrnet_w40",
    "hrnet_w44",
    "hrnet_w48",
    "hrnet_w64",
)
