"""Policies with one mistake each, and how it is reported."""

from __future__ import annotations

# Text; line and column; key; a part of what is wrong; a part of what to do.
Row = tuple[str, str, str, str, str]

VALUES: list[Row] = [
    ("[levels]\nmax_bits = 12", "2:1", "levels.max_bits", "at most 8 (got 12)", "give 2 to 8 bits"),
    ("[levels]\nmin_bits = 1", "2:1", "levels.min_bits", "at least 2 (got 1)", "give 2 to 8 bits"),
    ("[levels]\nmin_bits = 2.5", "2:1", "levels.min_bits", "(got 2.5)", "give a whole number, 2"),
    ('[levels]\nmin_bits = "4"', "2:1", "levels.min_bits", '(got "4")', "without quotes"),
    ("[frame]\nmin_fps = 0", "2:1", "frame.min_fps", "more than 0 (got 0)", "frames/s"),
    ("frame.min_fps = true", "1:7", "frame.min_fps", "a number (got true)", "more than 0, at most"),
    ("[thermal]\non_c = -inf", "2:1", "thermal.on_c", "(got -inf)", "give 0 to 125 °C"),
    ('[thermal]\non_c = "hot"', "2:1", "thermal.on_c", '(got "hot")', "give a number, 0 to 125 °C"),
    ("[thermal]\nzones = []", "2:1", "thermal.zones", "not be empty (got [])", "leave the key out"),
    ('[thermal]\nzones = "cpu"', "2:1", "thermal.zones", '(got "cpu")', '[ "cpu" ]'),
    ("[thermal]\nzones = ['a', 1]", "2:15", "thermal.zones.1", "(got 1)", "into quotes"),
    ("[thermal]\nrequired = 'yes'", "2:1", "thermal.required", '(got "yes")', "true or false"),
    ("thermal = 80", "1:1", "thermal", "a table (got 80)", "put its keys below"),
    ("[[thermal]]", "1:1", "thermal", "a table (got [{}])", "put its keys below"),
    ('name = ""', "1:1", "name", 'not be empty (got "")', "fill it"),
    ("name = 3", "1:1", "name", "text in quotes (got 3)", "into quotes"),
    ("schema = 2", "1:1", "schema", "reads schema 1 (got 2)", "update edge-app"),
    ("[battery]\non_ac = 'ignor'", "2:1", "battery.on_ac", '(got "ignor")', 'mean "ignore"?'),
    ("[battery]\non_ac = 7", "2:1", "battery.on_ac", "(got 7)", 'write "ignore" or "apply"'),
    ("[battery]\nuntil = '18:00'", "2:1", "battery.until", '(got "18:00")', "18:00:00 without"),
    ("[battery]\nuntil = '9:05'", "2:1", "battery.until", "time of day", "write 09:05:00 without"),
    ("[battery]\nuntil = 18", "2:1", "battery.until", "(got 18)", "write 18:00:00 without"),
    ("[battery]\nuntil = 2026-01-02", "2:1", "battery.until", "2026-01-02", "18:00:00 without"),
    ("battery.until = 2026-01-02T18:00:00", "1:9", "battery.until", "T18:00:00", "18:00:00 with"),
    (
        "[battery]\ntiers = { below = 3 }",
        "2:1",
        "battery.tiers",
        "array of tables",
        "brackets: [ {",
    ),
    ("[battery]\ntiers = [3]", "2:10", "battery.tiers.0", "a table (got 3)", "{ below = 20"),
    ("[[battery.tiers]]\nbelow = 9", "1:1", "battery.tiers.0.max_bits", "is missing", "add it"),
    (
        "[battery]\ntiers = [ { below = 40, max_bits = 6 },\n  { below = 20, max_bits = 9 } ]",
        "3:17",
        "battery.tiers.1.max_bits",
        "at most 8 (got 9)",
        "give 2 to 8 bits",
    ),
]

NUMBERS: list[Row] = [
    # JSON does not tell 2.0 from 2, and has no word for this one.
    ("[levels]\nmin_bits = 2.0", "2:1", "levels.min_bits", "a whole number (got 2.0)", "write 2"),
    ("[thermal]\non_c = nan", "2:1", "thermal.on_c", "finite number (got nan)", "0 to 125 °C"),
]

KEYS: list[Row] = [
    ("[thermal]\ncontroll_c = 3", "2:1", "thermal.controll_c", "unknown key", 'mean "control_c"?'),
    ("[thermal]\ntarget_fps = 3", "2:1", "thermal.target_fps", "unknown", '"frame.target_fps"?'),
    ("[levels]\nmax = 4", "2:1", "levels.max", "unknown key", 'did you mean "max_bits"?'),
    ("[energy]\nfoo = 4", "2:1", "energy.foo", "unknown key", "known here: idle_w, active_w"),
    ("[termal]\non_c = 4", "1:1", "termal", "unknown key", 'did you mean "thermal"?'),
    ('["a.b"]', "1:1", '"a.b"', "unknown key", "known here: schema, name"),
    ("policy_schema = 1", "1:1", "policy_schema", "unknown key", 'did you mean "schema"?'),
]

CONTRADICTIONS: list[Row] = [
    ("[levels]\nmin_bits = 8\nmax_bits = 4", "3:1", "levels.max_bits", "min_bits = 8", "give 8 or"),
    ("[thermal]\non_c = 90", "2:1", "thermal.on_c", "2 or more below", "give 76 or less"),
    ("[thermal]\npause_c = 80", "2:1", "thermal.pause_c", "critical_c = 88", "give 88 or more"),
    ("[frame]\nmin_fps = 60", "2:1", "frame.min_fps", "not be above", "give 30 or less"),
    (
        "[battery]\ntiers = [{below = 20, max_bits = 4}, {below = 40, max_bits = 4}]",
        "2:39",
        "battery.tiers.1.below",
        "below that of the tier before, 20 (got 40)",
        "from high to low",
    ),
    (
        "[battery]\ntiers = [{below = 20, max_bits = 4}, {below = 10, max_bits = 6}]",
        "2:51",
        "battery.tiers.1.max_bits",
        "not be above that of the tier before, 4 (got 6)",
        "less charge cannot allow more",
    ),
]

NO_TOML: list[Row] = [
    ("[thermal]\non_c = 60%", "2:10", "thermal.on_c", "not valid TOML", "the number alone"),
    ("[thermal]\non_c = 60 °C", "2:11", "thermal.on_c", "not valid TOML", "the number alone"),
    ("[battery]\nuntil = 18:00", "2:11", "battery.until", "not valid TOML", "write 18:00:00"),
    ("[battery]\nuntil = 25:00:00", "2:11", "battery.until", "not valid", "00:00:00 to 23:59:59"),
    ("[load]\nyield_to_others = Yes", "2:19", "load.yield_to_others", "invalid", "write true"),
    ("[load]\nyield_to_others = off # no", "2:19", "load.yield_to_others", "inv", "write false"),
    ("name = mine", "1:8", "name", "invalid value", 'name = "mine"'),
    ("name: mine", "1:5", "name", "expected '='", "write name = mine"),
    ("[battery]\nuntil = null", "2:9", "battery.until", "invalid", "remove the line"),
    ("[battery]\nuntil =", "2:8", "battery.until", "invalid", "remove the line"),
    ("[frame]\nmin_fps = 2,5", "2:12", "frame.min_fps", "not valid TOML", "decimal point: 2.5"),
    ("[frame]\nmin_fps = .5", "2:11", "frame.min_fps", "not valid TOML", "between digits"),
    ("[frame]\nmin_fps = 05", "2:12", "frame.min_fps", "not valid TOML", "leading zeros"),
    ("[frame]\nmin_fps = 2\nmin_fps = 3\n", "3:1", "frame.min_fps", "overwrite", "one of the two"),
    ("[frame]\n[load]\n[frame]\n", "3:1", "frame", "twice", "join the two"),
    ("[frame\nmin_fps = 2", "1:7", "frame", "expected ']'", "in brackets"),
    ('[load]\nx = "abc\ny = 2', "2:9", "load.x", "not valid TOML", "end the text with"),
    ("[thermal]\nzones = ['a',\n 'b'\n", "2:9", "thermal.zones", "unclosed array", "] at the end"),
    ("[battery]\ntiers = [{ below = 3,\n x = 1 }]", "2:22", "battery.tiers", "not valid", "comma"),
    ("[thermal]\nzones = ['a',\non_c = 60", "2:9", "thermal.zones", "not valid", "] at the end"),
    ("[thermal]\nzones = [\n # all", "2:9", "thermal.zones", "not valid", "] at the end"),
    ("load . step_s = [ 3", "1:17", "load.step_s", "unclosed array", "] at the end"),
    ("x = { a = 1\n", "1:5", "x", "unclosed inline table", "on one line"),
    ('name = """mine\n\n', "1:8", "name", "unterminated", 'with """'),
    ("[", "1:2", "", "not valid TOML", "in brackets"),
    ("min_fps 30", "1:9", "min_fps", "expected '='", "write key = value"),
    ("= 3", "1:1", "", "invalid statement", "write key = value"),
    ("[load]\nstep_s = 1 other_load = 2", "2:12", "load.step_s", "expected newline", "on a line"),
    ('name = "C:\\pi"', "1:13", "name", "not valid TOML", "single quotes"),
]

INVALID = VALUES + NUMBERS + KEYS + CONTRADICTIONS + NO_TOML
