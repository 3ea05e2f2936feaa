/* An imitation of libnvidia-ml.so.1: the real pynvml and its structures run on it, on machines without a GPU.
 *
 * $IMITATION_NVML names a text file that is read at each call, so that a test changes the hardware by replacing it:
 *
 *   gpu KEY=VALUE ...   one for each GPU. Keys: index uuid name (underscores are spaces) pci cc total used (MiB) util
 *                       temp slowdown watts limit joules reasons recovery lost procs (PID:MiB,...) mig (UUID:MiB,...)
 *                       A value `none` means that the GPU does not support the call.
 *   fail CODE           nvmlInit and nvmlDeviceGetCount fail with this nvmlReturn_t
 *   hang SECONDS        nvmlDeviceGetCount takes that long
 *
 * $IMITATION_NVML.events has one event a line, `INDEX TYPE DATA`, each delivered once to this process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, TIMED_OUT = 10, GPU_IS_LOST = 15 };
enum { GPUS = 8, INSTANCES = 7, LINE = 2048 };

/* A handle is the address of a slot, which is the same in each reading; instance -1 is the whole GPU. */
struct handle { int gpu, instance; };
typedef struct handle *handle_t;
static struct handle whole[GPUS], parts[GPUS][INSTANCES];
static char lines[GPUS][LINE];
static int count, initialised, failure, delay;

static const char *state_path(void) { const char *path = getenv("IMITATION_NVML"); return path ? path : "/nonexistent"; }

static int read_state(void) {
    char line[LINE]; FILE *file = fopen(state_path(), "re");
    count = failure = delay = 0;
    if (!file) return DRIVER_NOT_LOADED;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "fail %d", &failure) == 1 || sscanf(line, "hang %d", &delay) == 1) continue;
        if (!strncmp(line, "gpu ", 4) && count < GPUS) strcpy(lines[count++], line);
    }
    fclose(file);
    for (int i = 0; i < GPUS; i++) {
        whole[i] = (struct handle){ i, -1 };
        for (int k = 0; k < INSTANCES; k++) parts[i][k] = (struct handle){ i, k };
    }
    return SUCCESS;
}

/* Copy the value of `key` into `out`; 0 if it is missing or `none`. */
static int value(int gpu, const char *key, char *out, size_t size) {
    char wanted[32]; snprintf(wanted, sizeof wanted, " %s=", key);
    const char *at = strstr(lines[gpu], wanted);
    if (!at) return 0;
    at += strlen(wanted);
    size_t length = strcspn(at, " \n");
    if (length >= size) length = size - 1;
    memcpy(out, at, length); out[length] = 0;
    return strcmp(out, "none") != 0;
}

static int number(int gpu, const char *key, double *out) {
    char text[64];
    if (!value(gpu, key, text, sizeof text)) return NOT_SUPPORTED;
    *out = strncmp(text, "0x", 2) ? atof(text) : (double)strtoull(text, 0, 16);
    return SUCCESS;
}

static int alive(handle_t handle) {
    double lost = 0;
    if (!initialised) return UNINITIALIZED;
    int result = read_state();
    if (result) return result;
    if (!handle) return INVALID_ARGUMENT;
    if (handle->gpu >= count || (!number(handle->gpu, "lost", &lost) && lost)) return GPU_IS_LOST;
    return SUCCESS;
}

/* The nth entry NAME:MiB of the list `key`; 0 if there is none. */
static int entry(int gpu, const char *key, int wanted, char *name, size_t size, unsigned long long *mib) {
    char text[LINE], *rest = text, *part;
    if (!value(gpu, key, text, sizeof text)) return 0;
    for (int n = 0; (part = strsep(&rest, ",")); n++) {
        char *colon = strrchr(part, ':');
        if (n != wanted || !colon) continue;
        *colon = 0; snprintf(name, size, "%s", part); *mib = strtoull(colon + 1, 0, 10);
        return 1;
    }
    return 0;
}

static int text(char *out, unsigned size, const char *from) {
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(out, from);
    return SUCCESS;
}

#define CHECK(handle) do { int checked = alive(handle); if (checked) return checked; } while (0)
#define NUMBER(handle, key, type, out, factor) do { double got; CHECK(handle); \
    int result = number((handle)->gpu, key, &got); if (result) return result; *(out) = (type)(got * (factor)); return SUCCESS; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int result = read_state();
    if (result || failure) return result ? result : failure;
    initialised++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!initialised) return UNINITIALIZED; initialised--; return SUCCESS; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success"; case NOT_SUPPORTED: return "Not Supported"; case TIMED_OUT: return "Timeout";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded"; case GPU_IS_LOST: return "GPU is lost"; default: return "Unknown Error";
    }
}
int nvmlDeviceGetCount_v2(unsigned *out) {
    if (!initialised) return UNINITIALIZED;
    int result = read_state();
    if (delay) sleep(delay);
    *out = count;
    return result ? result : failure;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *out) {
    if (!initialised) return UNINITIALIZED;
    int result = read_state();
    if (result) return result;
    if ((int)index >= count) return INVALID_ARGUMENT;
    *out = &whole[index];
    return alive(*out);
}
int nvmlDeviceGetUUID(handle_t handle, char *out, unsigned size) {
    char found[96] = ""; unsigned long long mib;
    CHECK(handle);
    if (handle->instance < 0) value(handle->gpu, "uuid", found, sizeof found);
    else if (!entry(handle->gpu, "mig", handle->instance, found, sizeof found, &mib)) return NOT_FOUND;
    return text(out, size, found);
}
int nvmlDeviceGetName(handle_t handle, char *out, unsigned size) {
    char found[96] = "";
    CHECK(handle);
    value(handle->gpu, "name", found, sizeof found - 8);
    for (char *at = found; *at; at++) if (*at == '_') *at = ' ';
    if (handle->instance >= 0) strcat(found, " MIG");
    return text(out, size, found);
}
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
int nvmlDeviceGetPciInfo_v3(handle_t handle, pci_t *out) {
    CHECK(handle);
    memset(out, 0, sizeof *out);
    return value(handle->gpu, "pci", out->bus_id, sizeof out->bus_id) ? SUCCESS : NOT_SUPPORTED;
}
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlDeviceGetMemoryInfo(handle_t handle, memory_t *out) {
    double total, used = 0; char name[96]; unsigned long long mib;
    CHECK(handle);
    if (handle->instance >= 0) {
        if (!entry(handle->gpu, "mig", handle->instance, name, sizeof name, &mib)) return NOT_FOUND;
        total = mib;
    } else if (number(handle->gpu, "total", &total)) return NOT_SUPPORTED;
    else number(handle->gpu, "used", &used);
    out->total = (unsigned long long)total << 20; out->used = (unsigned long long)used << 20; out->free = out->total - out->used;
    return SUCCESS;
}
typedef struct { unsigned gpu, memory; } utilization_t;
int nvmlDeviceGetUtilizationRates(handle_t handle, utilization_t *out) { out->memory = 0; NUMBER(handle, "util", unsigned, &out->gpu, 1); }
int nvmlDeviceGetTemperature(handle_t handle, int sensor, unsigned *out) { (void)sensor; NUMBER(handle, "temp", unsigned, out, 1); }
int nvmlDeviceGetTemperatureThreshold(handle_t handle, int kind, unsigned *out) { (void)kind; NUMBER(handle, "slowdown", unsigned, out, 1); }
int nvmlDeviceGetPowerUsage(handle_t handle, unsigned *out) { NUMBER(handle, "watts", unsigned, out, 1000); }
int nvmlDeviceGetEnforcedPowerLimit(handle_t handle, unsigned *out) { NUMBER(handle, "limit", unsigned, out, 1000); }
int nvmlDeviceGetTotalEnergyConsumption(handle_t handle, unsigned long long *out) { NUMBER(handle, "joules", unsigned long long, out, 1000); }
int nvmlDeviceGetClockInfo(handle_t handle, int kind, unsigned *out) { (void)kind; NUMBER(handle, "mhz", unsigned, out, 1); }
int nvmlDeviceGetCurrentClocksEventReasons(handle_t handle, unsigned long long *out) { NUMBER(handle, "reasons", unsigned long long, out, 1); }
int nvmlDeviceGetCudaComputeCapability(handle_t handle, int *major, int *minor) {
    char found[16];
    CHECK(handle);
    if (!value(handle->gpu, "cc", found, sizeof found)) return NOT_SUPPORTED;
    return sscanf(found, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}
typedef struct { unsigned field, scope; long long at, latency; unsigned type; int result; union { double d; unsigned u; unsigned long long ull; } value; } field_t;
int nvmlDeviceGetFieldValues(handle_t handle, int fields, field_t *out) {
    double action;
    CHECK(handle);
    for (int i = 0; i < fields; i++) {
        out[i].result = number(handle->gpu, "recovery", &action);
        if (!out[i].result) { out[i].value.ull = 0; out[i].value.u = (unsigned)action; }
    }
    return SUCCESS;
}
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t handle, unsigned *room, process_t *out) {
    char pid[96]; unsigned long long mib; unsigned found = 0;
    CHECK(handle);
    while (entry(handle->gpu, "procs", found, pid, sizeof pid, &mib)) {
        if (found < *room && out) out[found] = (process_t){ strtoul(pid, 0, 10), mib << 20, ~0u, ~0u };
        found++;
    }
    int fits = found <= *room;
    *room = found;
    return fits ? SUCCESS : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetMigMode(handle_t handle, unsigned *current, unsigned *pending) {
    char found[96]; unsigned long long mib;
    CHECK(handle);
    *current = *pending = entry(handle->gpu, "mig", 0, found, sizeof found, &mib);
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(handle_t handle, unsigned *out) { CHECK(handle); *out = INSTANCES; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle_t handle, unsigned index, handle_t *out) {
    char found[96]; unsigned long long mib;
    CHECK(handle);
    if (index >= INSTANCES || !entry(handle->gpu, "mig", index, found, sizeof found, &mib)) return NOT_FOUND;
    *out = &parts[handle->gpu][index];
    return SUCCESS;
}

typedef struct { handle_t device; unsigned long long type, data; unsigned gi, ci; } event_t;
static int event_set; static long delivered;
int nvmlDeviceGetSupportedEventTypes(handle_t handle, unsigned long long *out) { CHECK(handle); *out = 0x1 | 0x2 | 0x4 | 0x8; return SUCCESS; }
int nvmlEventSetCreate(void **out) {
    static char last[4096];
    if (strcmp(last, state_path())) { snprintf(last, sizeof last, "%s", state_path()); delivered = 0; }
    *out = &event_set;
    return initialised ? SUCCESS : UNINITIALIZED;
}
int nvmlDeviceRegisterEvents(handle_t handle, unsigned long long types, void *set) { (void)types; (void)set; CHECK(handle); return SUCCESS; }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
int nvmlEventSetWait_v2(void *set, event_t *out, unsigned limit_ms) {
    char path[4096], line[128];
    (void)set;
    snprintf(path, sizeof path, "%s.events", state_path());
    for (unsigned waited = 0;; waited += 100) {
        if (!initialised) return UNINITIALIZED;
        FILE *file = fopen(path, "re");
        if (file) {
            int index; unsigned long long type, data;
            fseek(file, delivered, SEEK_SET);
            int found = fgets(line, sizeof line, file) && strchr(line, '\n') && sscanf(line, "%d %llu %llu", &index, &type, &data) == 3;
            if (found) delivered = ftell(file);
            fclose(file);
            if (found && index >= 0 && index < GPUS) { *out = (event_t){ &whole[index], type, data, ~0u, ~0u }; return SUCCESS; }
        }
        if (waited >= limit_ms) return TIMED_OUT;
        nanosleep(&(struct timespec){ 0, 100000000 }, 0);
    }
}
