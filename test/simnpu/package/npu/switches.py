"""Settings of the real torch.npu; here they are only kept, for tests to read."""

from __future__ import annotations

settings: dict[str, bool] = {"conv.allow_hf32": True, "matmul.allow_hf32": False}


def set_compile_mode(jit_compile: bool = False) -> None:
    settings["jit_compile"] = jit_compile


class _Config:
    """`allow_internal_format` can be set and not read, as in the real one."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "allow_internal_format":
            raise AttributeError(f"torch.npu.config has no {name}")
        settings["allow_internal_format"] = bool(value)


class _Hf32:
    def __init__(self, owner: str) -> None:
        object.__setattr__(self, "_key", f"{owner}.allow_hf32")

    def __setattr__(self, name: str, value: object) -> None:
        if name != "allow_hf32":
            raise AttributeError(f"torch.npu.{self._key.split('.')[0]} has no {name}")
        if not isinstance(value, bool):
            raise TypeError(f"allow_hf32 must be a bool, but got {type(value).__name__}")
        settings[self._key] = value

    @property
    def allow_hf32(self) -> bool:
        return settings[self._key]


config, conv, matmul = _Config(), _Hf32("conv"), _Hf32("matmul")
