#include "options.h"
#include "console.h"

// A character of the line, or NUL past the end of the sector: a line without its NUL ends there.
struct line {
    const char *text;
    u32 at, limit;
};

static char peek(const struct line *line)
{
    return line->at < line->limit ? line->text[line->at] : 0;
}

static int accept(struct line *line, const char *word)
{
    u32 length = 0;
    while (word[length]) {
        if (line->at + length >= line->limit || line->text[line->at + length] != word[length])
            return 0;
        length++;
    }
    line->at += length;
    return 1;
}

static u64 number(struct line *line)
{
    u64 value = 0;
    if (peek(line) < '0' || peek(line) > '9')
        fail("sector 0: a number is missing");
    for (; peek(line) >= '0' && peek(line) <= '9'; line->at++)
        value = value * 10 + (u64)(peek(line) - '0');
    return value;
}

static void parse_one(struct options *options, struct line *line)
{
    if (accept(line, "mode=check"))
        options->mode = MODE_CHECK;
    else if (accept(line, "mode=write"))
        options->mode = MODE_WRITE;
    else if (accept(line, "mode=verify"))
        options->mode = MODE_VERIFY;
    else if (accept(line, "rounds="))
        options->rounds = number(line);
    else if (accept(line, "start="))
        options->start = number(line);
    else if (accept(line, "first="))
        options->first = number(line);
    else if (accept(line, "sectors="))
        options->sectors = number(line);
    else if (accept(line, "inflight="))
        options->inflight = number(line);
    else if (accept(line, "seed="))
        options->seed = number(line);
    else if (accept(line, "size="))
        options->size = number(line);
    else if (accept(line, "wait=ring"))
        options->wait_for_interrupt = 0;
    else if (accept(line, "wait=interrupt"))
        options->wait_for_interrupt = 1;
    else
        fail("sector 0: unknown option");
}

void options_parse(struct options *options, const char *text, u32 limit)
{
    struct line line = {text, 0, limit};
    options->mode = MODE_CHECK;
    options->rounds = 1;
    options->start = 1;
    options->first = 64;
    options->sectors = 0;
    options->inflight = 16;
    options->seed = 1;
    options->size = 0;
    options->wait_for_interrupt = 0;
    if (!accept(&line, "e2kdisk-guest"))
        return;
    while (peek(&line)) {
        if (peek(&line) == ' ' || peek(&line) == '\n') {
            line.at++;
            continue;
        }
        parse_one(options, &line);
        if (peek(&line) && peek(&line) != ' ' && peek(&line) != '\n')
            fail("sector 0: unknown option");
    }
    if (options->size > 64 || options->size & (options->size - 1))
        fail("sector 0: size is not a power of two up to 64");
}

static void print_one(const char *name, u64 value)
{
    put_text(name);
    put_decimal(value);
}

void options_print(const struct options *options)
{
    put_text(options->mode == MODE_CHECK ? "options: mode=check" : options->mode == MODE_WRITE ? "options: mode=write"
                                                                                            : "options: mode=verify");
    print_one(" rounds=", options->rounds);
    print_one(" start=", options->start);
    print_one(" first=", options->first);
    print_one(" sectors=", options->sectors);
    print_one(" inflight=", options->inflight);
    print_one(" seed=", options->seed);
    print_one(" size=", options->size);
    put_text(options->wait_for_interrupt ? " wait=interrupt\n" : " wait=ring\n");
}
