#!/usr/bin/env bash
# Debian's ejabberd, tuned for a comparison, on one core in a directory of its own until it is told to stop (SIGTERM,
# Ctrl-C); then nothing of it is left. The domain is bench.localhost, every password `bench`.
#
#   scripts/peers/ejabberd.sh [--port 25222] [--core 0] [--accounts u%d:100:20].. [--ready-file FILE]
#
# --port: in clear; the next one with TLS. --accounts NAME:COUNT:CLIQUE: so many accounts with names from 0, each a
# contact of the others of its clique. --ready-file: written once it serves, with its process and its configuration.
#
# Tuned: one scheduler that does not spin (spinning would count as CPU time of messages), rosters in memory, no shapers,
# no archive, no offline messages, nothing logged but warnings, and no module that clients of the comparison do not ask for.
# Rooms are at conference.bench.localhost: anybody's, without history, for 1,000 occupants, and gone with who was in them.
set -uo pipefail
. "$(dirname "$0")/serve.sh"

configure() {
    cat >"$place/ejabberd.yml" <<END
hosts: ["$domain"]
loglevel: warning
acme:
  auto: false
certfiles: ["$place/both.pem"]
listen:
  - port: $port
    ip: "127.0.0.1"
    module: ejabberd_c2s
    backlog: 4096
    max_stanza_size: 262144
  - port: $((port + 1))
    ip: "127.0.0.1"
    module: ejabberd_c2s
    backlog: 4096
    max_stanza_size: 262144
    tls: true
auth_method: internal
auth_password_format: scram
shaper: {}
shaper_rules: {}
modules:
  mod_roster: {}
  mod_disco: {}
  mod_muc:
    history_size: 0
    max_users: 1000
    default_room_options:
      max_users: 1000
  mod_ping: {}
END
    cat "$place/cert.pem" "$place/key.pem" >"$place/both.pem"
}

# What the server itself evaluates once it has started: one account is registered, the others are copies of it, since all
# have the same password. Then a file says so.
accounts_program() {
    local account name count clique lists=()
    for account in "${accounts[@]}"; do
        IFS=: read -r name count clique <<<"$account"
        lists+=("{<<\"${name%%\%d*}\">>, <<\"${name##*%d}\">>, $count, $clique}")
    done
    cat <<END
Domain = <<"$domain">>,
Name = fun(Head, Tail, Number) -> <<Head/binary, (integer_to_binary(Number))/binary, Tail/binary>> end,
ok = ejabberd_auth:try_register(<<"first">>, Domain, <<"$password">>),
[Account] = mnesia:dirty_read(passwd, {<<"first">>, Domain}),
{atomic, ok} = mnesia:change_table_copy_type(roster, node(), disc_copies),
Friend = fun(User, Other) ->
    Contact = {Other, Domain, <<>>},
    mnesia:dirty_write({roster, {User, Domain, Contact}, {User, Domain}, Contact, <<>>, both, none, [], <<>>, []})
end,
lists:foreach(fun({Head, Tail, Count, Clique}) ->
    lists:foreach(fun(Number) ->
        User = Name(Head, Tail, Number),
        mnesia:dirty_write(setelement(2, Account, {User, Domain})),
        Begin = Number - Number rem Clique,
        Others = lists:seq(Begin, min(Begin + Clique, Count) - 1) -- [Number],
        lists:foreach(fun(Other) -> Friend(User, Name(Head, Tail, Other)) end, Others)
    end, lists:seq(0, Count - 1))
end, [$(IFS=,; echo "${lists[*]}")]),
ejabberd_auth:remove_user(<<"first">>, Domain),
ok = file:write_file("$place/made", <<>>).
END
}

has_accounts() {
    [ -e "$place/made" ] && answers
}

read_arguments "$@"
# Where Erlang finds applications: the packages' directory, which has the architecture in its name.
libraries=(/usr/lib/*/ejabberd-*/ebin/ejabberd.app)
need_peer erl:erlang-base ejabberdctl:ejabberd "${libraries[0]}:ejabberd"
prepare
configure
# Not by ejabberdctl: Debian's reads /etc/ejabberd/ejabberdctl.cfg behind its arguments, whose EJABBERD_CONFIG_PATH takes
# the place of --config; and root's is run by another user, for whom this directory is closed. Without a node name there
# is neither a port mapper nor a cookie to be left behind.
export HOME=$place
export ERL_LIBS=${libraries[0]%/ejabberd-*}
export EJABBERD_CONFIG_PATH=$place/ejabberd.yml
export EJABBERD_LOG_PATH=$place/ejabberd.log
export ERL_CRASH_DUMP=/dev/null
unset ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS
serve "$place/ejabberd.yml" has_accounts erl +K true +P 250000 +Q 65536 +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none \
    -noinput -mnesia dir "\"$place/spool\"" -s ejabberd -eval "$(accounts_program)"
