/* How an arm64 program starts under Android's loader, and the note that tells Android what it is:
   what the NDK's crtbegin_dynamic.o holds. */

extern int main(int, char **);
extern void __libc_init(void *stack, void (*)(void), int (*)(int, char **), void *const *structors);

__asm__(".globl _start\n_start: mov x29, #0\n mov x30, #0\n mov x0, sp\n b start_main\n");

__attribute__((used, visibility("hidden"))) void start_main(void *stack) {
  static void *const none[6]; /* the program has neither constructors nor destructors */
  __libc_init(stack, 0, main, none);
}

__attribute__((section(".note.android.ident"), used, aligned(4))) static const struct {
  unsigned name_bytes, bytes, type;
  char name[8];
  unsigned api_level;
} note = {8, 4, 1, "Android", 26};
