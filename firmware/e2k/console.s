# The console: channel A of the ESCC (Z85C30), polled. Channel 0 of Linux: control at serial_base, data one byte up.

    .include "calls.s"

    .equ SERIAL, 0x8000_1000            # unless the boot block says otherwise
    .equ WR5, 5                         # transmitter control
    .equ TX_ENABLED, 0x68               # 8 bits, enabled
    .equ TX_EMPTY, 4                    # in RR0

    .align 64                           # stores here must not look like changed code
serial: .dword SERIAL
    .align 64

.routine console_open                   # console_open(serial_base): 0 means the usual place
    .reg base r0, value r8, none p0
    { setwd wsz=FRAME; cmpedb base, 0 -> none }
    { addd 0, SERIAL -> base ? none; addd 0, WR5 -> value }
    { std base -> [serial]; return ctpr3 }
    stb value -> [base]
    addd 0, TX_ENABLED -> value
    { stb value -> [base]; ct ctpr3 }

.routine put                            # put(character): a line end goes out as CR LF
    .reg letter r0, port r8, status r9, zero r10, line_end p0, busy p1
    { setwd wsz=FRAME; ldd [serial] -> port; cmpesb letter, '\n' -> line_end; addd 0, 0 -> zero }
    { addd 0, '\r' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS ? line_end
.wait:
    stb zero -> [port]                  # the next read is of RR0
    ldb [port] -> status
    cmpandesb status, TX_EMPTY -> busy
    branch .wait ? busy
    { stb letter -> [port + 1]; return ctpr3 }
    ct ctpr3

.routine print                          # print(text): up to its NUL
    .reg text r0, letter r8, end p0
    setwd wsz=FRAME
.next:
    { ldb [text] -> letter; addd text, 1 -> text }
    { cmpesb letter, 0 -> end; addd letter, 0 -> r16; disp ctpr1, put }
    branch .done ? end
    call ctpr1, wbs=ARGS
    branch .next
.done:
    return ctpr3
    ct ctpr3

.routine print_hex                      # print_hex(value, digits)
    .reg value r0, digits r1, shift r8, digit r9, numeral p0, last p1
    { setwd wsz=FRAME; subd digits, 1 -> digits }
.next:
    shld digits, 2 -> shift
    shrd value, shift -> digit
    { andd digit, 15 -> digit; cmpedb digits, 0 -> last }
    { cmpbedb digit, 9 -> numeral; subd digits, 1 -> digits; addd digit, '0' -> r16; disp ctpr1, put }
    addd digit, 'a' - 10 -> r16 ? ~numeral
    call ctpr1, wbs=ARGS
    branch .next ? ~last
    return ctpr3
    ct ctpr3

.routine print_decimal                  # print_decimal(value)
    .reg value r0, rest r8, digit r9, last p0
    { setwd wsz=FRAME; addd 0, 10 -> digit }
    udivd value, digit -> rest
    { muld rest, digit -> digit; cmpedb rest, 0 -> last; addd rest, 0 -> r16; disp ctpr1, print_decimal }
    { call ctpr1, wbs=ARGS ? ~last; subd value, digit -> digit }
    { addd digit, '0' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine fail                           # fail(text): say it and stop
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
stop: branch stop                       # for ever: this is how a program of this folder ends
