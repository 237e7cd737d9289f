"""Every metric that llamarig exports, declared once: for exporter, daemon, reference and rules.

Names follow https://prometheus.io/docs/practices/naming/: base units, ratios of 0 to 1, ``_total`` for counters alone.
A card is its UUID in the label ``gpu``; what it is called is in ``llamarig_gpu_info``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

Kind = Literal["gauge", "counter"]
# Who measures it: the exporter asks the cards and the machine, the daemon knows of services.
Source = Literal["exporter", "daemon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is exported, a counter's with ``_total``.
        kind: ``gauge`` or ``counter``.
        unit: the base unit, empty for a plain number.
        labels: names of its labels, in order.
        help: what it says, in one sentence.
        source: who measures it.
        asked: the call of NVML or the file that it comes from.
        absent: what it means that there is no such series.

    """

    name: str
    help: str
    kind: Kind = "gauge"
    unit: str = ""
    labels: tuple[str, ...] = ()
    source: Source = "exporter"
    asked: str = ""
    absent: str


def _own(
    name: str,
    help_text: str,
    *,
    unit: str = "",
    kind: Kind = "gauge",
    labels: tuple[str, ...] = (),
    source: Source = "exporter",
    asked: str = "",
    absent: str,
) -> Metric:
    return Metric(
        name=f"llamarig_{name}",
        help=help_text,
        kind=kind,
        unit=unit,
        labels=labels,
        source=source,
        asked=asked,
        absent=absent,
    )


def _card(
    name: str,
    help_text: str,
    asked: str,
    *,
    unit: str = "",
    kind: Kind = "gauge",
    labels: tuple[str, ...] = (),
    absent: str = "the card does not answer that",
) -> Metric:
    return _own(f"gpu_{name}", help_text, kind=kind, unit=unit, labels=("gpu", *labels), asked=asked, absent=absent)


_daemon: Final = partial(_own, source="daemon", absent="no such service")


GPU: Final = (
    _card(
        "info",
        "What a card is; always 1.",
        "nvmlDeviceGetName, nvmlDeviceGetPciInfo_v3, nvmlDeviceGetCudaComputeCapability",
        labels=("index", "name", "model", "pci_address", "compute_capability"),
    ),
    _card(
        "up",
        "Whether a card that is declared or was seen answers (1) or does not (0).",
        "nvmlDeviceGetHandleByIndex_v2",
        absent="no card of that UUID is declared, and none was seen since the exporter was started",
    ),
    _card("memory_total_bytes", "Memory of the card.", "nvmlDeviceGetMemoryInfo_v2", unit="bytes"),
    _card(
        "memory_used_bytes",
        "Memory that processes hold, without what is reserved.",
        "nvmlDeviceGetMemoryInfo_v2",
        unit="bytes",
    ),
    _card("memory_free_bytes", "Memory that is free.", "nvmlDeviceGetMemoryInfo_v2", unit="bytes"),
    _card("memory_reserved_bytes", "Memory that driver and firmware keep.", "nvmlDeviceGetMemoryInfo_v2", unit="bytes"),
    _card("utilization_ratio", "Share of time in which a kernel ran.", "nvmlDeviceGetUtilizationRates", unit="ratio"),
    _card(
        "memory_utilization_ratio",
        "Share of time in which memory was read or written.",
        "nvmlDeviceGetUtilizationRates",
        unit="ratio",
    ),
    _card(
        "encoder_utilization_ratio",
        "Share of time in which the encoder worked.",
        "nvmlDeviceGetEncoderUtilization",
        unit="ratio",
    ),
    _card(
        "decoder_utilization_ratio",
        "Share of time in which the decoder worked.",
        "nvmlDeviceGetDecoderUtilization",
        unit="ratio",
    ),
    _card("power_watts", "Power drawn, averaged over a second.", "nvmlDeviceGetPowerUsage", unit="watts"),
    _card("power_instant_watts", "Power drawn at the moment.", "nvmlDeviceGetFieldValues, 186", unit="watts"),
    _card("power_limit_watts", "Power limit that is set.", "nvmlDeviceGetPowerManagementLimit", unit="watts"),
    _card(
        "power_enforced_limit_watts",
        "Power limit in force, the least of all that apply.",
        "nvmlDeviceGetEnforcedPowerLimit",
        unit="watts",
    ),
    _card(
        "power_default_limit_watts",
        "Power limit that the card comes with.",
        "nvmlDeviceGetPowerManagementDefaultLimit",
        unit="watts",
    ),
    _card(
        "energy_joules_total",
        "Energy since the driver was loaded.",
        "nvmlDeviceGetTotalEnergyConsumption",
        unit="joules",
        kind="counter",
    ),
    _card("temperature_celsius", "Temperature of the card's processor.", "nvmlDeviceGetTemperatureV", unit="celsius"),
    _card(
        "memory_temperature_celsius",
        "Temperature of the card's memory.",
        "nvmlDeviceGetFieldValues, 82",
        unit="celsius",
    ),
    _card(
        "temperature_threshold_celsius",
        "Temperature from which the card turns off, slows down, or holds clocks back for its memory or its processor.",
        "nvmlDeviceGetTemperatureThreshold",
        unit="celsius",
        labels=("threshold",),
    ),
    _card(
        "temperature_margin_celsius",
        "Degrees that are left until the card holds clocks back.",
        "nvmlDeviceGetMarginTemperature",
        unit="celsius",
    ),
    _card(
        "temperature_margin_threshold_celsius",
        "Margin at which the card turns off, slows down, or holds clocks back; the thresholds of Ada and later.",
        "nvmlDeviceGetFieldValues, 193 to 196",
        unit="celsius",
        labels=("threshold",),
    ),
    _card("clock_hertz", "Clock at the moment.", "nvmlDeviceGetClockInfo", unit="hertz", labels=("clock",)),
    _card("clock_max_hertz", "Highest clock.", "nvmlDeviceGetMaxClockInfo", unit="hertz", labels=("clock",)),
    _card(
        "fan_speed_ratio",
        "Speed that a fan is told, of its highest.",
        "nvmlDeviceGetFanSpeed_v2",
        unit="ratio",
        labels=("fan",),
    ),
    _card("performance_state", "Performance state, 0 the fastest.", "nvmlDeviceGetPerformanceState"),
    _card("persistence_mode", "Whether the driver keeps the card awake.", "nvmlDeviceGetPersistenceMode"),
    _card(
        "throttle",
        "Whether a reason holds the clocks down at the moment.",
        "nvmlDeviceGetCurrentClocksEventReasons",
        labels=("reason",),
    ),
    _card(
        "throttle_seconds_total",
        "Time for which a reason held the clocks down.",
        "nvmlDeviceGetFieldValues, 74, 76, 269 to 271",
        unit="seconds",
        kind="counter",
        labels=("reason",),
        absent="the card does not answer that, or the driver is older than 580.82",
    ),
    _card(
        "pcie_generation",
        "PCIe generation of the link at the moment; lower while the card idles.",
        "nvmlDeviceGetCurrPcieLinkGeneration",
    ),
    _card("pcie_generation_max", "PCIe generation that card and slot can do.", "nvmlDeviceGetMaxPcieLinkGeneration"),
    _card("pcie_width", "PCIe lanes of the link at the moment.", "nvmlDeviceGetCurrPcieLinkWidth"),
    _card("pcie_width_max", "PCIe lanes that card and slot can do.", "nvmlDeviceGetMaxPcieLinkWidth"),
    _card(
        "pcie_replays_total",
        "Packets that were sent again over PCIe.",
        "nvmlDeviceGetPcieReplayCounter",
        kind="counter",
    ),
    _card(
        "pcie_bytes_total",
        "Traffic over PCIe since the driver was loaded: transmit from the card, receive to it.",
        "nvmlDeviceGetFieldValues, 197 and 198",
        unit="bytes",
        kind="counter",
        labels=("direction",),
        absent="the card does not answer that, or counts it in 32 bits",
    ),
    _card(
        "pcie_throughput_bytes_per_second",
        "Traffic over PCIe; only where exporter_pcie_throughput is set, for it takes 40 ms a card.",
        "nvmlDeviceGetPcieThroughput",
        unit="bytes per second",
        labels=("direction",),
        absent="it is not set, or the card does not answer that",
    ),
    _card(
        "service_memory_bytes",
        "Memory that a service's processes hold; service is empty for others.",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        unit="bytes",
        labels=("service",),
    ),
    _card(
        "service_processes",
        "Processes of a service on the card; service is empty for others.",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        labels=("service",),
    ),
    _card(
        "xid_watched",
        "Whether the exporter listens for the card's Xid errors.",
        "nvmlDeviceRegisterEvents",
        absent="the card does not answer",
    ),
    _card(
        "xid_errors_total",
        "Xid errors since the exporter was started.",
        "nvmlEventSetWait_v2",
        kind="counter",
        labels=("xid",),
        absent="it has not been seen since the exporter was started",
    ),
    _card(
        "xid_last_timestamp_seconds",
        "When an Xid error was seen last, in seconds since 1970.",
        "nvmlEventSetWait_v2",
        unit="seconds",
        labels=("xid",),
        absent="it has not been seen since the exporter was started",
    ),
    _card(
        "recovery_action",
        "What the card needs: 0 nothing, 1 a reset, 2 a reboot, 3 and 4 to be drained first.",
        "nvmlDeviceGetFieldValues, 230",
    ),
)
MACHINE: Final = (
    _own(
        "gpus_declared",
        "Cards that the inventory declares for the host.",
        asked="/etc/llamarig/hardware.json",
        absent="the file cannot be read",
    ),
    _own(
        "driver_info",
        "Versions of the driver; always 1.",
        labels=("driver_version", "nvml_version", "cuda_version", "module_version"),
        asked=(
            "nvmlSystemGetDriverVersion, nvmlSystemGetNVMLVersion, nvmlSystemGetCudaDriverVersion_v2,"
            " /sys/module/nvidia/version"
        ),
        absent="there is no driver",
    ),
    _own(
        "driver_mismatch",
        "Whether user space and kernel module of the driver have different versions.",
        asked="nvmlInit_v2, code 18",
        absent="there is no driver, or it failed otherwise",
    ),
    _own(
        "models_size_bytes",
        "Size of the file system with the models.",
        unit="bytes",
        asked="statvfs",
        absent="there is no such directory or no service, or its file system does not answer",
    ),
    _own(
        "models_free_bytes",
        "Free space where the models are.",
        unit="bytes",
        asked="statvfs",
        absent="there is no such directory or no service, or its file system does not answer",
    ),
    _own("exporter_info", "What the exporter is; always 1.", labels=("version", "release"), absent="never"),
    _own(
        "collection_success",
        "Whether the last collection came to its end; where no card is declared, no driver need be there.",
        absent="never",
    ),
    _own(
        "collection_timestamp_seconds",
        "When what is exported was collected, in seconds since 1970; what is older than a minute is left out.",
        unit="seconds",
        absent="nothing was collected yet",
    ),
    _own(
        "collection_duration_seconds",
        "How long the last collection took.",
        unit="seconds",
        absent="nothing was collected yet",
    ),
    _own(
        "collection_stuck_seconds",
        "For how long the collection under way has had no answer; 0 while none is.",
        unit="seconds",
        absent="never",
    ),
    _own(
        "collection_errors_total",
        "Questions to NVML that failed, by its code; what a card does not know is no failure.",
        kind="counter",
        labels=("code",),
        absent="none failed that way",
    ),
    _own("daemon_up", "Whether llamarigd answered the exporter.", asked="/run/llamarig/api/read.sock", absent="never"),
)
SERVICES: Final = (
    _daemon(
        "service_info",
        "What a service is; always 1.",
        labels=("service", "profile", "strategy", "spec_sha256", "image", "engine_commit", "port"),
    ),
    _daemon("service_active", "Whether a service should be serving.", labels=("service",)),
    _daemon(
        "service_health",
        "How an active service is: 1 for the one health that it has.",
        labels=("service", "health"),
        absent="the service is not active",
    ),
    _daemon(
        "service_planned",
        "Whether an active service runs with the spec that is planned now.",
        labels=("service",),
        absent="the service is not active",
    ),
    _daemon("service_pinned", "Whether a service may leave only when it is asked to.", labels=("service",)),
    _daemon("service_default", "Whether a service is the host's default.", labels=("service",)),
    _daemon(
        "service_given_up", "Whether a service was given up because it ended again and again.", labels=("service",)
    ),
    _daemon(
        "service_restarts",
        "How often systemd has started a service's unit anew since it was started.",
        labels=("service",),
        absent="the service is not active, or was not looked at yet",
    ),
    _daemon(
        "service_faults_total",
        "How often a service was found to be other than well or loading; also what was mended at once.",
        kind="counter",
        labels=("service", "health"),
        absent="the service is not active, and was always well since the daemon was started",
    ),
    _daemon(
        "service_in_flight_requests",
        "Requests that a service is answering.",
        labels=("service",),
        absent="the service is not active, or the door does not say",
    ),
    _daemon(
        "service_idle_seconds",
        "Since when a service has had no request.",
        unit="seconds",
        labels=("service",),
        absent="the service is not active",
    ),
    _daemon(
        "service_load_seconds",
        "How long a service's last start took, from the gate to its health.",
        unit="seconds",
        labels=("service",),
        absent="no switch to it succeeded since the daemon was started",
    ),
    _daemon(
        "service_memory_bytes",
        "Memory of a service on a device, host or a card's UUID: predicted, allocated as the engine says, or measured.",
        unit="bytes",
        labels=("service", "device", "by"),
        absent="nobody knows",
    ),
    _daemon("switching", "Whether a request is carried out at the moment.", absent="never"),
    _daemon("stopped", "Whether the last service was stopped on purpose.", absent="never"),
    _daemon(
        "switches_total",
        "Switches that came to an end.",
        kind="counter",
        labels=("service", "outcome"),
        absent="none did since the daemon was started",
    ),
    _daemon(
        "switch_phase_seconds_total",
        "Time that switches spent in a phase.",
        unit="seconds",
        kind="counter",
        labels=("service", "phase"),
        absent="none did since the daemon was started",
    ),
    _daemon(
        "switch_last_seconds",
        "How long the last switch to a service took that succeeded.",
        unit="seconds",
        labels=("service",),
        absent="no switch to it succeeded since the daemon was started",
    ),
    _daemon(
        "api_requests_total",
        "Requests to the management API.",
        kind="counter",
        labels=("route", "status"),
        absent="there was none",
    ),
    _daemon(
        "engine_up",
        "Whether an active service's engine gave its own metrics.",
        labels=("service",),
        absent="the service is not active, or its engine sleeps when idle and has no request",
    ),
    _daemon("daemon_info", "What the daemon is; always 1.", labels=("version", "release"), absent="never"),
    _daemon(
        "daemon_start_time_seconds",
        "When the daemon was started, in seconds since 1970.",
        unit="seconds",
        absent="never",
    ),
)
METRICS: Final = (*GPU, *MACHINE, *SERVICES)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
