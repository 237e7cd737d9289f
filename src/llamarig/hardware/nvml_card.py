"""What is asked of one card for its metrics, and in which units it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from llamarig.hardware.gpus import LOST, RESET_REQUIRED, THROTTLES, UNKNOWN, CardFault
from llamarig.hardware.measured import Holder, MeasuredCard, Value
from llamarig.hardware.nvml import ABSENT, pci_address

UNINITIALIZED: Final = 1
_INVALID: Final = 2
_OTHER_VERSION: Final = 25
# After these a card answers nothing until NVML is begun anew, or the card is.
GONE: Final = frozenset({UNINITIALIZED, LOST, RESET_REQUIRED})
# The first driver with the field ids below; before it, other fields had the last three of them.
RENUMBERED: Final = (580, 82)
_CLOCKS: Final = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
_THRESHOLDS: Final = {"shutdown": 0, "slowdown": 1, "memory": 2, "gpu": 3}
_DIRECTIONS: Final = {"transmit": 0, "receive": 1}


@dataclass(frozen=True, slots=True)
class _Question:
    """A call that answers with one number, which is multiplied and divided into base units; ``unknown`` is none."""

    metric: str
    call: str
    times: int = 1
    per: int = 1
    argument: int | None = None
    label: str = ""
    unknown: int | None = None


def _each(metric: str, call: str, kinds: dict[str, int], times: int = 1) -> tuple[_Question, ...]:
    return tuple(_Question(metric, call, times, 1, number, label) for label, number in kinds.items())


_QUESTIONS: Final = (
    _Question("power_watts", "nvmlDeviceGetPowerUsage", per=1000),
    _Question("power_limit_watts", "nvmlDeviceGetPowerManagementLimit", per=1000),
    _Question("power_enforced_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", per=1000),
    _Question("power_default_limit_watts", "nvmlDeviceGetPowerManagementDefaultLimit", per=1000),
    _Question("energy_joules_total", "nvmlDeviceGetTotalEnergyConsumption", per=1000),
    _Question("performance_state", "nvmlDeviceGetPerformanceState", unknown=32),
    _Question("persistence_mode", "nvmlDeviceGetPersistenceMode"),
    _Question("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
    _Question("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
    _Question("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth"),
    _Question("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    _Question("pcie_replays_total", "nvmlDeviceGetPcieReplayCounter"),
    _Question("temperature_margin_celsius", "nvmlDeviceGetMarginTemperature"),
    *_each("temperature_threshold_celsius", "nvmlDeviceGetTemperatureThreshold", _THRESHOLDS),
    *_each("clock_hertz", "nvmlDeviceGetClockInfo", _CLOCKS, 1_000_000),
    *_each("clock_max_hertz", "nvmlDeviceGetMaxClockInfo", _CLOCKS, 1_000_000),
)
# NVML says KB and means 1000 of them; each question takes 20 ms.
_THROUGHPUT: Final = _each("pcie_throughput_bytes_per_second", "nvmlDeviceGetPcieThroughput", _DIRECTIONS, 1000)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of nvmlDeviceGetFieldValues; ``name`` is that of its id in nvidia-ml-py 13.580.126.

    One that is ``wide`` counts so fast that it means nothing in 32 bits: it would begin anew several times a second.
    """

    name: str
    id: int
    metric: str
    label: str = ""
    per: int = 1
    renumbered: bool = False
    wide: bool = False


_SECONDS: Final = "throttle_seconds_total"
_MARGIN: Final = "temperature_margin_threshold_celsius"
_NANO: Final = 1_000_000_000
FIELDS: Final = (
    Field("PERF_POLICY_POWER", 74, _SECONDS, "power-cap", _NANO),
    Field("PERF_POLICY_SYNC_BOOST", 76, _SECONDS, "sync-boost", _NANO),
    Field("MEMORY_TEMP", 82, "memory_temperature_celsius"),
    Field("POWER_INSTANT", 186, "power_instant_watts", per=1000),
    Field("TEMPERATURE_SHUTDOWN_TLIMIT", 193, _MARGIN, "shutdown"),
    Field("TEMPERATURE_SLOWDOWN_TLIMIT", 194, _MARGIN, "slowdown"),
    Field("TEMPERATURE_MEM_MAX_TLIMIT", 195, _MARGIN, "memory"),
    Field("TEMPERATURE_GPU_MAX_TLIMIT", 196, _MARGIN, "gpu"),
    Field("PCIE_COUNT_TX_BYTES", 197, "pcie_bytes_total", "transmit", wide=True),
    Field("PCIE_COUNT_RX_BYTES", 198, "pcie_bytes_total", "receive", wide=True),
    Field("GET_GPU_RECOVERY_ACTION", 230, "recovery_action"),
    Field("CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", 269, _SECONDS, "software-thermal", _NANO, renumbered=True),
    Field("CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN", 270, _SECONDS, "hardware-thermal", _NANO, renumbered=True),
    Field("CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN", 271, _SECONDS, "power-brake", _NANO, renumbered=True),
)
# Kinds of a field's number, and where it stands (nvml.h, nvmlValueType_t).
_NUMBERS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_WIDE: Final = frozenset({"ulVal", "ullVal"})


def known_fields(driver: str) -> tuple[Field, ...]:
    """Return the fields that mean to a driver of this version what they mean here."""
    words = driver.split(".")[:2]
    version = tuple(int(word) for word in words if word.isdigit())
    return tuple(item for item in FIELDS if not item.renumbered or version >= RENUMBERED)


def measure(nvml: Any, index: int, fields: tuple[Field, ...], *, throughput: bool) -> MeasuredCard | CardFault:
    """Return what one card measures, or why it does not answer."""
    identity: dict[str, Any] = {}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        identity["uuid"] = nvml.nvmlDeviceGetUUID(handle)
        identity["pci_address"] = pci_address(nvml.nvmlDeviceGetPciInfo_v3(handle).busId)
        name = said(nvml.nvmlDeviceGetName, handle)
        asked = _Asked(nvml, handle)
        values = [*asked.memory(), *asked.values(throughput=throughput), *asked.fields(fields)]
        holders = asked.holders()
        capability = asked("nvmlDeviceGetCudaComputeCapability") or ()
    except nvml.NVMLError as error:
        return CardFault(index=index, code=error.value, **identity)
    except ValueError:
        # What a card says of itself is no text, or no address: it hides no other.
        return CardFault(index=index, code=UNKNOWN, **identity)
    if asked.codes and not values:
        return CardFault(index=index, code=asked.codes[0], **identity)
    return MeasuredCard(
        index=index,
        **identity,
        name=name,
        compute_capability=".".join(map(str, capability)),
        values=tuple(values),
        holders=holders,
        codes=tuple(asked.codes),
    )


def said(call: Callable[..., str], *arguments: Any) -> str:
    """Return what a call says; the binding fails at bytes that are no text, and here they stand as ``\ufffd``."""
    try:
        return call(*arguments)
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "replace")


class _Asked:
    """One card that is asked; a question that fails leaves its own answer out, and is counted."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self.codes: list[int] = []

    def __call__(self, call: str, *arguments: Any) -> Any:
        """Return the answer, None where the card does not know it or fails; one that is gone is an error."""
        try:
            return getattr(self._nvml, call)(self._handle, *arguments)
        except self._nvml.NVMLError as error:
            if error.value in GONE:
                raise
            if error.value not in {*ABSENT, _OTHER_VERSION}:
                self.codes.append(error.value)
            return None

    def memory(self) -> Iterator[Value]:
        """Yield what the card's memory is used for; one that shares the machine's has none of its own."""
        if (memory := self("nvmlDeviceGetMemoryInfo", self._nvml.nvmlMemory_v2)) is not None:
            for name in ("total", "used", "free", "reserved"):
                yield Value(f"memory_{name}_bytes", (), getattr(memory, name))

    def values(self, *, throughput: bool) -> Iterator[Value]:
        """Yield what calls of their own answer."""
        for question in (*_QUESTIONS, *(_THROUGHPUT if throughput else ())):
            number = self(question.call, *(() if question.argument is None else (question.argument,)))
            if number is not None and number != question.unknown:
                labels = (question.label,) if question.label else ()
                yield Value(question.metric, labels, number * question.times / question.per)
        yield from self._utilization()
        if (degrees := self._temperature()) is not None:
            yield Value("temperature_celsius", (), degrees)
        for fan in range(self("nvmlDeviceGetNumFans") or 0):
            if (percent := self("nvmlDeviceGetFanSpeed_v2", fan)) is not None:
                yield Value("fan_speed_ratio", (str(fan),), percent / 100)
        if (reasons := self("nvmlDeviceGetCurrentClocksEventReasons")) is not None:
            for bit, reason in THROTTLES.items():
                yield Value("throttle", (reason,), float(bool(reasons & bit)))

    def _utilization(self) -> Iterator[Value]:
        if (rates := self("nvmlDeviceGetUtilizationRates")) is not None:
            yield Value("utilization_ratio", (), rates.gpu / 100)
            yield Value("memory_utilization_ratio", (), rates.memory / 100)
        for name in ("Encoder", "Decoder"):
            if (answer := self(f"nvmlDeviceGet{name}Utilization")) is not None:
                yield Value(f"{name.lower()}_utilization_ratio", (), answer[0] / 100)

    def fields(self, fields: tuple[Field, ...]) -> Iterator[Value]:
        """Yield what fields answer; they are asked all at once."""
        answers = self("nvmlDeviceGetFieldValues", [item.id for item in fields])
        for item, answer in zip(fields, answers or (), strict=False):
            if answer.nvmlReturn:
                # An id beyond those that a driver knows is no valid argument to it.
                if answer.nvmlReturn not in {*ABSENT, _INVALID}:
                    self.codes.append(answer.nvmlReturn)
            elif answer.valueType < len(_NUMBERS):
                # A margin may be below 0, whatever kind of number a driver calls it.
                kind = "siVal" if item.metric == _MARGIN else _NUMBERS[answer.valueType]
                if item.wide and kind not in _WIDE:
                    continue
                number = getattr(answer.value, kind)
                yield Value(item.metric, (item.label,) if item.label else (), number / item.per)

    def holders(self) -> tuple[Holder, ...] | None:
        """Return the processes with memory on the card, None where the driver does not say."""
        listed = self("nvmlDeviceGetComputeRunningProcesses_v3")
        return None if listed is None else tuple(Holder(item.pid, item.usedGpuMemory) for item in listed)

    def _temperature(self) -> int | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        degrees: int | None = self("nvmlDeviceGetTemperatureV", sensor)
        # A driver before 570 knows the former question alone.
        return self("nvmlDeviceGetTemperature", sensor) if degrees is None else degrees
