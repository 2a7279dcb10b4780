# The output of a test program as results, a line a test:
#   PLACE PROGRAM TEST passed|failed|skipped|known REASON, by tabs.
# It reads libtest (with --show-output), libtest-mimic, TAP, and a script's lines
# `passed NAME`, `FAILED NAME: REASON`, `SKIPPED NAME: REASON`, `all done`.
# Variables: place, program, status (the program's own).
function result(test, how, reason) {
    if (!(test in results)) order[++tests] = test
    results[test] = how
    reasons[test] = reason
}

/^test .* \.\.\. (ok|FAILED|ignored.*)$/ {
    test = how = $0
    sub(/^test /, "", test)
    sub(/( - should panic)? *\.\.\. .*/, "", test)
    sub(/.* \.\.\. /, "", how)
    result(test, how == "ok" ? "passed" : how == "FAILED" ? "failed" : "skipped", how)
    next
}
/^test result: |^all done$/ { ended = 1 }

# What a test said; it skips itself by saying so.
/^---- .* stdout ----$/ { said_by = $0; gsub(/^---- | stdout ----$/, "", said_by) }
/^SKIPPED / && results[said_by] == "passed" { result(said_by, "skipped", $0) }

/^(passed|FAILED|SKIPPED) / && said_by == "" {
    test = $2
    sub(/:$/, "", test)
    result(test, $1 == "passed" ? "passed" : $1 == "FAILED" ? "failed" : "skipped", $0)
}

/^1\.\.[0-9]+$/ { planned = substr($0, 4) }
/^(not )?ok [0-9]+ - / {
    test = reason = $0
    sub(/^(not )?ok [0-9]+ - /, "", test)
    sub(/ # (SKIP|TODO) .*/, "", test)
    sub(/.* # (SKIP|TODO) /, "", reason)
    result(test, / # SKIP /  ? "skipped" : / # TODO / ? "known" : /^ok/ ? "passed" : "failed", reason)
    ended = tests == planned
}

END {
    for (i = 1; i <= tests; i++) {
        test = order[i]
        failed += results[test] == "failed"
        print place "\t" program "\t" test "\t" results[test] "\t" reasons[test]
    }
    if (!ended || (status != 0 && !failed)) print place "\t" program "\t(all)\tfailed\texit status " status
}
