"""What every test takes for granted."""

import signal

# A script's background job, or nohup, starts with these ignored; commands respect that, and the
# tests that send them would wait for ever. What tests start inherits the default.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
