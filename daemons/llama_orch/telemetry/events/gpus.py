"""Events of GPUs: found, lost, faulty, fenced, too hot."""

import logging

from llama_orch.telemetry.events.event import Event

GPUS_FOUND = Event(
    "gpus_found",
    "195db0c0f5dc40f3b0a5ab14429526ce",
    "pool_managerd.gpus",
    logging.INFO,
    "GPUs found: {gpus}",
    "No action is required.",
)
GPU_LOST = Event(
    "gpu_lost",
    "4ba8f22206464462895c6982119e512b",
    "pool_managerd.gpus",
    logging.ERROR,
    "GPU {device} is no longer usable: {reason}",
    "The driver lost the device; pools on it are not ready. See journalctl -k for Xid messages of the NVIDIA\n"
    "driver. Often it takes a reset of the GPU or a reboot.",
)
GPU_RETURNED = Event(
    "gpu_returned",
    "e47ac632520c4cc9928e2de108bb08ff",
    "pool_managerd.gpus",
    logging.INFO,
    "GPU {device} can be read again",
    "No action is required. Its pools are ready again when their engines answer, unless the GPU is fenced.",
)
GPUS_UNKNOWN = Event(
    "gpus_unknown",
    "b459071afb8a4f9ebf72c46dca8fbe35",
    "pool_managerd.gpus",
    logging.WARNING,
    "GPUs cannot be read: {reason}",
    "Pools whose GPU was never seen are not possible on this machine; others are ready while their engines\n"
    "answer. On a machine with NVIDIA GPUs install the driver (nvidia-driver and libnvidia-ml1) and restart pool-\n"
    "managerd. If the driver does not answer, see journalctl -k; often only a reboot helps. Pools on the CPU are\n"
    "not affected.",
)
GPU_APPLICATION_FAULT = Event(
    "gpu_application_fault",
    "43ce52119ec6401e8ce0102a1138bef9",
    "pool_managerd.gpus",
    logging.WARNING,
    "GPU {device}: Xid {xid}, {meaning} (number {count} since the start); the driver says: {detail}",
    "A fault of a program on the GPU, most often of the engine. It is counted, and logged at most once a minute;\n"
    "the GPU goes on. If it happens often, see the engine's log and try another release of the engine or of the\n"
    "driver.",
)
GPU_FAULT = Event(
    "gpu_fault",
    "ceae3d9537cf4a8091a496925cdae426",
    "pool_managerd.gpus",
    logging.ERROR,
    "GPU {device}: Xid {xid}, {meaning} (number {count} since the start); {action}; the driver says: {detail}",
    "The NVIDIA driver reports an error of this GPU. If it is one of hardware, the GPU is fenced (event\n"
    "gpu_fenced). Logged at most once a minute for each code. Meanings: https://docs.nvidia.com/deploy/xid-\n"
    "errors/",
)
GPU_FENCED = Event(
    "gpu_fenced",
    "438beca8840143a7bb69e2e39f2f1fd8",
    "pool_managerd.gpus",
    logging.CRITICAL,
    "GPU {device}, {uuid}, is fenced: {reason}; {action}",
    "A hardware fault: no more work is placed on this GPU, and its pools drain. Do what the message says. A reset\n"
    "of the GPU, a new start of its driver or a reboot ends the fence. To end it by hand:\n"
    "  orchctl gpus unfence @UUID@",
)
GPU_UNFENCED = Event(
    "gpu_unfenced",
    "1e7ed95ed4af4bc991d3a56fc70cf777",
    "pool_managerd.gpus",
    logging.INFO,
    "GPU {device} is no longer fenced: {reason}",
    "Its pools take requests again when their engines answer. Engines that ran during a reset must be restarted:\n"
    "  systemctl restart 'llama-engine@*'",
)
GPU_THROTTLED = Event(
    "gpu_throttled",
    "61558f480d034019a31bca007737eb08",
    "pool_managerd.gpus",
    logging.WARNING,
    "GPU {device} is slowed down: {reason}",
    "It works, but slower. Check the fans, the air flow, dust, the room's temperature and the power supply. A lower\n"
    "power limit (nvidia-smi --power-limit) often costs little speed.",
)
GPU_FENCES_NOT_KEPT = Event(
    "gpu_fences_not_kept",
    "9da253c291b749b69931c1e3e21c416c",
    "pool_managerd.gpus",
    logging.WARNING,
    "the file with fenced GPUs cannot be used, {file}: {reason}",
    "pool-managerd goes on, but fences may not survive its next restart. Check the permissions of the directory,\n"
    "and remove the file if it is damaged.",
)
