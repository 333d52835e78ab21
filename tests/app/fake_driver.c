/* What core/device/graphics_card.cpp calls of NVML, for one card: FAKE_CARD and FAKE_CARD_GIB in the environment; an
   empty name: none. */
#include <stdlib.h>
#include <string.h>

struct memory {
  unsigned long long total, free, used;
};

static int card;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  const char* const name = getenv("FAKE_CARD");
  *device = &card;
  return index != 0 || !name || !*name;
}
int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  const char* const from = getenv("FAKE_CARD");
  if (device != &card || strlen(from) >= length) return 1;
  memcpy(name, from, strlen(from) + 1);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, struct memory* memory) {
  const char* const gib = getenv("FAKE_CARD_GIB");
  if (device != &card || !gib) return 1;
  memory->total = strtoull(gib, NULL, 10) << 30;
  memory->free = memory->total, memory->used = 0;
  return 0;
}
