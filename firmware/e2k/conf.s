# boot.conf: lines key=value, blanks around both; "#" begins a comment line. What stands before the first label= holds
# for all, each label= begins a section. conf_open turns the text into pairs, key NUL value NUL, and an empty key.

    .include "memory.s"
    .include "console.s"

.routine skip_blanks                    # skip_blanks(text) -> the first character that is no blank, tab or CR
    .reg text r0, letter r8, blank p0, tab p1, cr p2, other p3
    setwd wsz=FRAME
.next:
    { ldb [text] -> letter; addd text, 1 -> text }
    { cmpesb letter, ' ' -> blank; cmpesb letter, '\t' -> tab; cmpesb letter, '\r' -> cr }
    other = ~blank & ~tab
    other = other & ~cr
    branch .next ? ~other
    return ctpr3
    { subd text, 1 -> r0; ct ctpr3 }

.routine trim                           # trim(start, end) -> end without the blanks, tabs and CRs before it
    .reg start r0, end r1, last r8, letter r9, blank p0, tab p1, cr p2, other p3, empty p4
    setwd wsz=FRAME
.next:
    { cmpedb start, end -> empty; subd end, 1 -> last }
    branch .done ? empty
    ldb [last] -> letter
    { cmpesb letter, ' ' -> blank; cmpesb letter, '\t' -> tab; cmpesb letter, '\r' -> cr }
    other = ~blank & ~tab
    other = other & ~cr
    { addd last, 0 -> end ? ~other; branch .next ? ~other }
.done:
    return ctpr3
    { addd end, 0 -> r0; ct ctpr3 }

.routine conf_open                      # conf_open(): the text at CONF, up to its NUL, becomes pairs in its place
    .reg from r8, to r9, letter r10, line r11, start r12, zero r13, line_end p0, end p1, comment p2, equals p3
    { setwd wsz=FRAME; addd 0, CONF -> from; addd 0, CONF -> to; addd 0, 1 -> line; addd 0, 0 -> zero }
.line:
    { addd from, 0 -> r16; disp ctpr1, skip_blanks }
    call ctpr1, wbs=ARGS
    { ldb [r16] -> letter; addd r16, 0 -> from }
    { cmpesb letter, 0 -> end; cmpesb letter, '\n' -> line_end; cmpesb letter, '#' -> comment }
    branch .finish ? end
    { addd from, 1 -> from ? line_end; addd line, 1 -> line ? line_end; branch .line ? line_end }
    { addd to, 0 -> start; branch .comment ? comment }
.key:
    { ldb [from] -> letter; addd from, 1 -> from }
    { cmpesb letter, '=' -> equals; cmpesb letter, 0 -> end; cmpesb letter, '\n' -> line_end }
    branch .bad ? end
    branch .bad ? line_end
    { stb letter -> [to] ? ~equals; addd to, 1 -> to ? ~equals; branch .key ? ~equals }
    { addd start, 0 -> r16; addd to, 0 -> r17; disp ctpr1, trim }
    call ctpr1, wbs=ARGS
    { stb zero -> [r16]; addd r16, 1 -> to; addd from, 0 -> r16; disp ctpr1, skip_blanks }
    { call ctpr1, wbs=ARGS; addd to, 0 -> start }
    addd r16, 0 -> from
.value:
    { ldb [from] -> letter; addd from, 1 -> from }
    { cmpesb letter, 0 -> end; cmpesb letter, '\n' -> line_end }
    branch .valued ? end
    { addd line, 1 -> line ? line_end; branch .valued ? line_end }
    { stb letter -> [to]; addd to, 1 -> to; branch .value }
.valued:                                # the NUL may go where the line end was: that has been read
    { addd start, 0 -> r16; addd to, 0 -> r17; disp ctpr1, trim }
    call ctpr1, wbs=ARGS
    { stb zero -> [r16]; addd r16, 1 -> to; branch .line ? ~end }
.finish:
    { stb zero -> [to]; return ctpr3 }
    ct ctpr3
.comment:
    ldb [from] -> letter
    { cmpesb letter, 0 -> end; cmpesb letter, '\n' -> line_end }
    branch .finish ? end
    branch .line ? line_end
    { addd from, 1 -> from; branch .comment }
.bad:
    { addd 0, "boot: /boot.conf, line " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd line, 0 -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    { addd 0, ": neither key=value nor a comment" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS

.routine conf_get                       # conf_get(label, key) -> address of its value, or 0; label 0: before them all
    .reg label r0, key r1, at r8, value r9, letter r10, end p0, marks p1, global p2, active p3, hit p4
    { setwd wsz=FRAME; cmpedb label, 0 -> global; cmpedb label, 0 -> active; addd 0, CONF -> at }
.next:
    { ldb [at] -> letter; addd at, 0 -> r16; disp ctpr1, length }
    { call ctpr1, wbs=ARGS; cmpesb letter, 0 -> end }
    branch .nothing ? end
    { addd at, r16 -> value; addd at, 0 -> r16; addd 0, "label" -> r17; disp ctpr1, same }
    { call ctpr1, wbs=ARGS; addd value, 1 -> value }
    { cmpedb r16, 1 -> marks; addd value, 0 -> r16; addd label, 0 -> r17; disp ctpr1, same }
    branch .plain ? ~marks
    branch .nothing ? global
    call ctpr1, wbs=ARGS
    cmpedb r16, 1 -> active
.plain:
    { addd at, 0 -> r16; addd key, 0 -> r17; disp ctpr1, same }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 1 -> hit; addd value, 0 -> r16; disp ctpr1, length; addd value, 0 -> r11 }
    hit = hit & active
    branch .found ? hit
    call ctpr1, wbs=ARGS
    addd value, r16 -> at
    { addd at, 1 -> at; branch .next }
.found:
    return ctpr3
    { addd value, 0 -> r0; ct ctpr3 }
.nothing:
    return ctpr3
    { addd 0, 0 -> r0; ct ctpr3 }

.routine parse_decimal                  # parse_decimal(text) -> its number, or -1 if it is none below 10^9
    .reg text r8, letter r9, value r10, digits r11, scaled r12, end p0, digit p1, few p2, none p3
    { setwd wsz=FRAME; addd r0, 0 -> text; addd 0, -1 -> r0; addd 0, 0 -> value; addd 0, 0 -> digits; return ctpr3 }
.next:
    { ldb [text] -> letter; addd text, 1 -> text; addd 0, 10 -> scaled }
    { cmpesb letter, 0 -> end; subd letter, '0' -> letter; cmpbedb digits, 8 -> few; muld value, scaled -> scaled }
    { cmpbedb letter, 9 -> digit; cmpedb digits, 0 -> none; branch .end ? end }
    ct ctpr3 ? ~digit
    ct ctpr3 ? ~few
    { addd scaled, letter -> value; addd digits, 1 -> digits; branch .next }
.end:
    { addd value, 0 -> r0 ? ~none; ct ctpr3 }
