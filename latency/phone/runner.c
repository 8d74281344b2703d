/* Measures one ONNX model on the device it runs on, and prints one line of JSON.

   runner LIBRARY MODEL [--shape 1,3,128,128] [--type float|float16|uint8] [--provider cpu|nnapi|NAME]
          [--option KEY=VALUE]... [--plugin LIBRARY] [--threads N] [--warmup N] [--runs N]
          [--limit SECONDS] [--layers PREFIX] [--watch]

   LIBRARY is any libonnxruntime.so from 1.17 on (1.22 with --plugin, for providers that are a library
   of their own). --limit ends the program by itself, --watch when its standard input is closed: a
   phone whose cable was pulled must not compute for ever. --layers runs the model once more under
   ONNX Runtime's profiler, whose file is PREFIX..., and counts the kernels by provider.

   Exit status 0 with {"times_ms": [...], ...}, or 2 with {"error": "..."}. */

#ifdef WITHOUT_NDK
#include "bionic.h"
#else
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#endif

/* --- ONNX Runtime's C API: a table of functions whose order never changes, so that the places of
   those used here are enough. Values that are handles are opaque. */

typedef struct Status Status;
typedef struct {
  const void *const *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
} ApiBase;
enum { API = 17, API_PLUGINS = 22 };
enum { FLOAT = 1, UINT8 = 2, FLOAT16 = 10 };
enum { CPU_ALLOCATOR = 1, DEFAULT_MEMORY = 0, ALL_OPTIMIZATIONS = 99, FATAL_ONLY = 4, MOST_DIMS = 8 };

static const void *const *api;
#define CALL(place, ...) (((Status * (*)(__VA_ARGS__)) api[place]))
#define error_message ((const char *(*)(const Status *))api[2])
#define create_env CALL(3, int, const char *, void **)
#define create_session CALL(7, void *, const char *, const void *, void **)
#define run_session                                                                                \
  CALL(9, void *, const void *, const char *const *, const void *const *, size_t,                  \
       const char *const *, size_t, void **)
#define create_options CALL(10, void **)
#define enable_profiling CALL(14, void *, const char *)
#define set_optimization CALL(23, void *, int)
#define set_intra_threads CALL(24, void *, int)
#define set_inter_threads CALL(25, void *, int)
#define count_inputs CALL(30, const void *, size_t *)
#define count_outputs CALL(31, const void *, size_t *)
#define input_name CALL(36, const void *, size_t, void *, char **)
#define output_name CALL(37, const void *, size_t, void *, char **)
#define create_tensor                                                                              \
  CALL(49, const void *, void *, size_t, const int64_t *, size_t, int, void **)
#define tensor_data CALL(51, void *, void **)
#define element_type CALL(60, const void *, int *)
#define count_dims CALL(61, const void *, size_t *)
#define get_dims CALL(62, const void *, int64_t *, size_t)
#define count_elements CALL(64, const void *, size_t *)
#define type_and_shape CALL(65, const void *, void **)
#define cpu_memory CALL(69, int, int, void **)
#define default_allocator CALL(78, void **)
#define release_session ((void (*)(void *))api[95])
#define release_value ((void (*)(void *))api[96])
#define end_profiling CALL(110, void *, void *, char **)
#define set_config CALL(130, void *, const char *, const char *)
#define append_provider                                                                            \
  CALL(216, void *, const char *, const char *const *, const char *const *, size_t)
#define register_plugin CALL(301, void *, const char *, const char *)
#define get_plugin_devices CALL(303, const void *, const void *const **, size_t *)
#define append_plugin                                                                              \
  CALL(304, void *, void *, const void *const *, size_t, const char *const *, const char *const *, \
       size_t)
#define device_provider ((const char *(*)(const void *))api[312])

/* --- the line of JSON */

static char *line;
static size_t used, room;

static void say(const char *format, ...) {
  va_list words;
  for (;;) {
    va_start(words, format);
    int wanted = vsnprintf(line + used, room - used, format, words);
    va_end(words);
    if (wanted < 0) return;
    if ((size_t)wanted < room - used) {
      used += (size_t)wanted;
      return;
    }
    char *more = realloc(line, room = 2 * room + (size_t)wanted + 256);
    if (!more) _exit(2);
    line = more;
  }
}

static void quoted(const char *text) {
  say("\"");
  for (; *text; text++) {
    unsigned char letter = (unsigned char)*text;
    if (letter == '"' || letter == '\\') say("\\%c", letter);
    else if (letter < 32) say("\\u%04x", letter);
    else say("%c", letter);
  }
  say("\"");
}

_Noreturn static void finish(int status) {
  say("\n");
  for (size_t done = 0; done < used;) {
    ssize_t some = write(1, line + done, used - done);
    if (some <= 0) _exit(2);
    done += (size_t)some;
  }
  _exit(status); /* libraries' destructors have crashed on phones after all was done */
}

_Noreturn static void fail(const char *what, const char *why) {
  used = 0;
  say("{\"error\": ");
  quoted(what);
  if (why) {
    say(", \"reason\": ");
    quoted(why);
  }
  say("}");
  finish(2);
}

static void check(const char *what, Status *status) {
  if (status) fail(what, error_message(status));
}

static void too_long(int number) {
  static const char text[] = "{\"error\": \"time limit\"}\n";
  (void)number;
  _exit(write(1, text, sizeof text - 1) > 0 ? 2 : 3);
}

static void *watch(void *unused) {
  char byte;
  (void)unused;
  while (read(0, &byte, 1) > 0) continue;
  _exit(3);
}

/* --- arguments */

typedef struct {
  const char *library, *model, *provider, *plugin, *layers;
  const char *keys[16], *values[16];
  size_t options;
  int64_t dims[MOST_DIMS];
  size_t rank;
  int type, threads, warmup, runs, limit, watch;
} Request;

static long number(const char *flag, const char *text, long least) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*end || end == text || value < least || value > 100000) fail(flag, "is not such a number");
  return value;
}

static Request parse(int count, char **words) {
  Request asked = {.provider = "cpu", .type = FLOAT, .threads = 1, .warmup = 5, .runs = 30};
  if (count < 3) fail("usage", "runner LIBRARY MODEL [FLAG VALUE]...");
  asked.library = words[1], asked.model = words[2];
  for (int k = 3; k < count; k++) {
    const char *flag = words[k];
    if (!strcmp(flag, "--watch")) {
      asked.watch = 1;
      continue;
    }
    if (++k == count) fail(flag, "needs a value");
    char *value = words[k];
    if (!strcmp(flag, "--provider")) asked.provider = value;
    else if (!strcmp(flag, "--plugin")) asked.plugin = value;
    else if (!strcmp(flag, "--layers")) asked.layers = value;
    else if (!strcmp(flag, "--threads")) asked.threads = (int)number(flag, value, 1);
    else if (!strcmp(flag, "--warmup")) asked.warmup = (int)number(flag, value, 0);
    else if (!strcmp(flag, "--runs")) asked.runs = (int)number(flag, value, 1);
    else if (!strcmp(flag, "--limit")) asked.limit = (int)number(flag, value, 1);
    else if (!strcmp(flag, "--type")) {
      asked.type = !strcmp(value, "float")     ? FLOAT
                   : !strcmp(value, "float16") ? FLOAT16
                   : !strcmp(value, "uint8")   ? UINT8
                                               : 0;
      if (!asked.type) fail(flag, "is float, float16 or uint8");
    } else if (!strcmp(flag, "--option")) {
      char *equals = strchr(value, '=');
      if (!equals || asked.options == 16) fail(flag, "is KEY=VALUE, at most 16 times");
      *equals = 0;
      asked.keys[asked.options] = value, asked.values[asked.options++] = equals + 1;
    } else if (!strcmp(flag, "--shape")) {
      for (char *next = value; next; asked.rank++) {
        char *comma = strchr(next, ',');
        if (asked.rank == MOST_DIMS) fail(flag, "has too many dimensions");
        if (comma) *comma = 0;
        asked.dims[asked.rank] = number(flag, next, 1);
        next = comma ? comma + 1 : NULL;
      }
    } else fail(flag, "is no flag");
  }
  if (!asked.rank) fail("--shape", "is needed");
  return asked;
}

/* --- what is measured */

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long peak_kib(void) {
  char text[256];
  long peak = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) return 0;
  while (fgets(text, sizeof text, file))
    if (!strncmp(text, "VmHWM:", 6)) peak = strtol(text + 6, NULL, 10);
  fclose(file);
  return peak;
}

static double half(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent ? 1024 + fraction : fraction;
  for (int k = exponent ? exponent : 1; k < 25; k++) value /= 2;
  for (int k = 25; k < exponent; k++) value *= 2;
  return bits & 0x8000 ? -value : value;
}

static uint16_t to_half(double value) { /* of values in [0, 1), rounded down */
  int exponent = 15;
  if (value < 1.0 / 16384) return (uint16_t)(value * 16777216.0);
  while (value < 1) value *= 2, exponent--;
  return (uint16_t)(exponent << 10 | (int)((value - 1) * 1024));
}

/* The same numbers everywhere, so that outputs can be compared between devices and providers. */
static void *random_image(const Request *asked, size_t *bytes) {
  size_t elements = 1, size = asked->type == FLOAT ? 4 : asked->type == FLOAT16 ? 2 : 1;
  uint32_t state = 1;
  for (size_t k = 0; k < asked->rank; k++) elements *= (size_t)asked->dims[k];
  char *image = malloc(*bytes = elements * size);
  if (!image) fail("memory", "not enough for the input");
  for (size_t k = 0; k < elements; k++) {
    state = state * 1664525u + 1013904223u;
    double value = (state >> 8) / 16777216.0;
    if (asked->type == FLOAT) ((float *)(void *)image)[k] = (float)value;
    else if (asked->type == FLOAT16) ((uint16_t *)(void *)image)[k] = to_half(value);
    else image[k] = (char)(unsigned char)(value * 256);
  }
  return image;
}

static void describe_output(void *output) {
  void *info, *data;
  size_t elements, rank;
  int64_t dims[MOST_DIMS];
  int type;
  check("output", type_and_shape(output, &info));
  check("output", element_type(info, &type));
  check("output", count_elements(info, &elements));
  check("output", count_dims(info, &rank));
  if (rank > MOST_DIMS) fail("output", "has too many dimensions");
  check("output", get_dims(info, dims, rank));
  check("output", tensor_data(output, &data));
  size_t size = type == FLOAT ? 4 : type == FLOAT16 ? 2 : type == UINT8 ? 1 : 0;
  double sum = 0;
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (size_t k = 0; k < elements && size; k++)
    sum += type == FLOAT     ? ((float *)data)[k]
           : type == FLOAT16 ? half(((uint16_t *)data)[k])
                             : ((unsigned char *)data)[k];
  for (size_t k = 0; k < elements * size; k++)
    hash = (hash ^ ((unsigned char *)data)[k]) * 1099511628211u;
  say(", \"output_shape\": [");
  for (size_t k = 0; k < rank; k++) say("%s%lld", k ? ", " : "", (long long)dims[k]);
  say("], \"checksum\": \"%016llx\"", (unsigned long long)hash);
  /* JSON has no NaN; x - x is 0 for every number that it has. */
  double mean = elements && size ? sum / (double)elements : 0;
  if (size && mean - mean == 0) say(", \"output_mean\": %.9g", mean);
  else say(", \"output_mean\": null");
}

static void *make_session(const Request *asked, void *env, const void *library, const char *profile) {
  void *options, *session;
  check("options", create_options(&options));
  check("options", set_optimization(options, ALL_OPTIMIZATIONS));
  check("options", set_inter_threads(options, 1));
  /* XNNPACK has threads of its own; ONNX Runtime's would only spin beside them. */
  int own = !strcmp(asked->provider, "XNNPACK");
  check("threads", set_intra_threads(options, own ? 1 : asked->threads));
  if (own) check("threads", set_config(options, "session.intra_op.allow_spinning", "0"));
  if (profile) check("profiling", enable_profiling(options, profile));
  if (asked->plugin) {
    const void *const *devices, *found = NULL;
    size_t count;
    check("provider", get_plugin_devices(env, &devices, &count));
    for (size_t k = 0; k < count && !found; k++)
      if (!strcmp(device_provider(devices[k]), asked->provider)) found = devices[k];
    if (!found) fail("provider", "the library given with it offers no such provider here");
    check("provider", append_plugin(options, env, &found, 1, asked->keys, asked->values, asked->options));
  } else if (!strcmp(asked->provider, "nnapi")) {
    Status *(*append)(void *, uint32_t);
    *(void **)&append = dlsym((void *)library, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
    if (!append) fail("provider", "this build of ONNX Runtime has no NNAPI");
    uint32_t flags = 0;
    for (size_t k = 0; k < asked->options; k++) {
      if (strcmp(asked->keys[k], "flags")) fail("provider", "NNAPI's only option is flags=N");
      flags = (uint32_t)number("flags", asked->values[k], 0);
    }
    check("provider", append(options, flags));
  } else if (strcmp(asked->provider, "cpu")) {
    check("provider", append_provider(options, asked->provider, asked->keys, asked->values, asked->options));
  }
  check("load", create_session(env, asked->model, options, &session));
  return session;
}

/* Counts the kernels that ran, by the provider that the profiler's file names. */
static void count_layers(const char *path) {
  char names[8][64], text[8192];
  int counts[8], known = 0;
  FILE *file = fopen(path, "r");
  if (!file) return;
  while (fgets(text, sizeof text, file)) {
    char *start = strstr(text, "\"provider\"");
    if (!strstr(text, "_kernel_time\"") || !start || !(start = strchr(start, ':'))) continue;
    if (!(start = strchr(start, '"'))) continue;
    char *end = strchr(++start, '"');
    if (!end || end - start > 63) continue;
    *end = 0;
    int k = 0;
    while (k < known && strcmp(names[k], start)) k++;
    if (k == 8) continue;
    if (k == known) memcpy(names[known], start, (size_t)(end - start) + 1), counts[known++] = 0;
    counts[k]++;
  }
  fclose(file);
  unlink(path);
  say(", \"layers\": {");
  for (int k = 0; k < known; k++) {
    say(k ? ", " : "");
    quoted(names[k]);
    say(": %d", counts[k]);
  }
  say("}");
}

int main(int count, char **words) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* before the library is there */
  Request asked = parse(count, words);
  pthread_t watcher;
  if (asked.limit) signal(SIGALRM, too_long), alarm((unsigned)asked.limit);
  if (asked.watch && pthread_create(&watcher, NULL, watch, NULL)) fail("watch", "no thread for it");

  void *library = dlopen(asked.library, RTLD_NOW | RTLD_GLOBAL);
  if (!library) fail("runtime", dlerror());
  const ApiBase *(*get_base)(void);
  *(void **)&get_base = dlsym(library, "OrtGetApiBase");
  if (!get_base) fail("runtime", "the library is not ONNX Runtime: it has no OrtGetApiBase");
  const ApiBase *base = get_base();
  api = base->get_api(asked.plugin ? API_PLUGINS : API);
  if (!api) fail("runtime", "this ONNX Runtime is too old: 1.17 is needed, 1.22 for plugins");

  void *env, *memory, *allocator, *input, *output = NULL;
  char *name_in, *name_out;
  size_t inputs, outputs, bytes;
  check("start", create_env(FATAL_ONLY, "mfagan", &env));
  if (asked.plugin && *asked.plugin)
    check("provider", register_plugin(env, asked.provider, asked.plugin));
  double started = now_ms();
  void *session = make_session(&asked, env, library, NULL);
  double load_ms = now_ms() - started;
  check("model", count_inputs(session, &inputs));
  check("model", count_outputs(session, &outputs));
  if (inputs != 1 || outputs < 1) fail("model", "one input and an output are needed");
  check("model", default_allocator(&allocator));
  check("model", input_name(session, 0, allocator, &name_in));
  check("model", output_name(session, 0, allocator, &name_out));
  void *image = random_image(&asked, &bytes);
  check("memory", cpu_memory(CPU_ALLOCATOR, DEFAULT_MEMORY, &memory));
  check("input", create_tensor(memory, image, bytes, asked.dims, asked.rank, asked.type, &input));

#define RUN() run_session(session, NULL, (const char *const *)&name_in, (const void *const *)&input, \
                          1, (const char *const *)&name_out, 1, &output)
  say("{\"runtime_version\": ");
  quoted(base->get_version());
  say(", \"load_ms\": %.3f, \"times_ms\": [", load_ms);
  for (int k = 0; k < asked.warmup + asked.runs; k++) {
    if (output) release_value(output), output = NULL;
    started = now_ms();
    check("run", RUN());
    if (k >= asked.warmup) say("%s%.6f", k > asked.warmup ? ", " : "", now_ms() - started);
  }
  say("], \"peak_bytes\": %lld", (long long)peak_kib() * 1024);
  describe_output(output);
  if (asked.layers) {
    char *profile;
    release_value(output), output = NULL;
    release_session(session);
    session = make_session(&asked, env, library, asked.layers);
    check("run", RUN());
    check("profiling", end_profiling(session, allocator, &profile));
    count_layers(profile);
  }
  say("}");
  finish(0);
}
