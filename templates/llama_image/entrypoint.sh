#!/bin/sh
# Starts llama-server in the engine's image. Under llamarig the whole command line comes from the plan, and this only
# hands it on. Without Ansible it is made of the environment:
#
#   LLAMA_MODEL              path of a GGUF file in the container, or
#   LLAMA_HF_REPO            a Hugging Face repository, <user>/<model>[:quant]
#   LLAMA_HF_FILE            one file of it
#   LLAMA_HF_REVISION        commit, tag or branch; needs LLAMA_HF_FILE, because the engine itself knows only `main`
#   LLAMA_HF_TOKEN           access token; reaches the engine as HF_TOKEN, never as an argument
#   LLAMA_SERVER_HOST        address to listen on in the container; 0.0.0.0
#   LLAMA_SERVER_PORT        port to listen on; 8080
#   LLAMA_SERVER_EXTRA_ARGS  more options: words, with '...', "..." and \ as in a shell, and nothing expanded
#
# Arguments of the container come last, so they win. LLAMA_API_KEY and LLAMA_ARG_* are the engine's own.
set -eu

fail() {
  printf 'entrypoint: %s\n    remedy: %s\n' "$1" "$2" >&2
  exit 64
}

# plain VALUE: it can stand in a URL and in a path as it is, and leads nowhere else.
plain() {
  case $1 in
    *[!A-Za-z0-9._/+-]* | /* | */ | *//* | ./* | ../* | */./* | */../* | */. | */.. | . | ..) return 1 ;;
  esac
}

model=${LLAMA_MODEL:-}
repo=${LLAMA_HF_REPO:-}
file=${LLAMA_HF_FILE:-}
revision=${LLAMA_HF_REVISION:-}
if [ -n "${LLAMA_HF_TOKEN:-}" ]; then
  export HF_TOKEN="$LLAMA_HF_TOKEN"
fi
unset LLAMA_HF_TOKEN

if [ -z "$model$repo" ]; then
  if [ -n "$file$revision" ]; then
    fail "LLAMA_HF_FILE or LLAMA_HF_REVISION is set, and LLAMA_HF_REPO is not" "set LLAMA_HF_REPO to <user>/<model>"
  fi
  if [ $# -gt 0 ]; then
    exec llama-server "$@"
  fi
  fail "there is nothing to serve: neither LLAMA_MODEL nor LLAMA_HF_REPO is set" \
    "set LLAMA_MODEL to a GGUF file in the container, or LLAMA_HF_REPO to <user>/<model>, or give llama-server's options"
fi
if [ -n "$model" ] && [ -n "$repo" ]; then
  fail "LLAMA_MODEL and LLAMA_HF_REPO are both set" "keep the one that is to be served"
fi

host=${LLAMA_SERVER_HOST:-0.0.0.0}
port=${LLAMA_SERVER_PORT:-8080}
case $port in
  *[!0-9]* | ??????*) fail "LLAMA_SERVER_PORT is '$port', which is no port" "set a number from 1 to 65535" ;;
esac
if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
  fail "LLAMA_SERVER_PORT is '$port', which is no port" "set a number from 1 to 65535"
fi

given=$#
url=''
if [ -n "$model" ]; then
  if [ ! -f "$model" ] || [ ! -r "$model" ]; then
    fail "LLAMA_MODEL is '$model', and there is no such file that uid $(id -u) can read" \
      "mount the directory of the file, as --volume /srv/models:/models:ro, and name the path inside the container"
  fi
  set -- "$@" --model "$model"
elif [ -z "$revision" ]; then
  set -- "$@" --hf-repo "$repo"
  if [ -n "$file" ]; then
    set -- "$@" --hf-file "$file"
  fi
else
  if [ -z "$file" ]; then
    fail "LLAMA_HF_REVISION is set, and LLAMA_HF_FILE is not" \
      "set LLAMA_HF_FILE to the GGUF file's name in the repository; of a file in parts, the first"
  fi
  case $repo in
    *:*) fail "LLAMA_HF_REPO is '$repo': a quant and LLAMA_HF_REVISION exclude each other" \
      "take off ${repo#"${repo%%:*}"} and set LLAMA_HF_FILE to that quant's file" ;;
  esac
  plain "$repo" || fail "LLAMA_HF_REPO is '$repo', which is no repository" "set it to <user>/<model>"
  plain "$file" || fail "LLAMA_HF_FILE is '$file', which is no path in a repository" "name the file as the hub lists it"
  plain "$revision" || fail "LLAMA_HF_REVISION is '$revision', which is no revision" "set a commit, a tag or a branch"
  hub=${MODEL_ENDPOINT:-${HF_ENDPOINT:-https://huggingface.co}}
  cache=${LLAMA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/llama.cpp}
  url=${hub%/}/$repo/resolve/$(printf %s "$revision" | sed 's,/,%2F,g')/$file
  # One directory for each revision: the engine falls back to a file that it has when the hub does not answer, and that
  # must not be another revision's.
  place=${cache%/}/revisions/$repo/$revision/$file
  set -- "$@" --model "$place"
fi
set -- "$@" --host "$host" --port "$port"

# Words of the extra options. No eval: a value is never code.
rest=${LLAMA_SERVER_EXTRA_ARGS:-}
word='' begun='' quote=''
while [ -n "$rest" ]; do
  tail=${rest#?}
  char=${rest%"$tail"}
  rest=$tail
  case $quote,$char in
    \',\' | \",\") quote='' ;;
    \',*) word=$word$char ;;
    \",\\)
      # Between double quotes it protects a quote or itself, and is a character before anything else.
      case $rest in
        [\"\\]*) char=${rest%"${rest#?}"} rest=${rest#?} ;;
      esac
      word=$word$char
      ;;
    \",*) word=$word$char ;;
    ,[[:space:]])
      [ -z "$begun" ] || set -- "$@" "$word"
      word='' begun=''
      ;;
    ,[\'\"]) quote=$char begun=yes ;;
    ,\\)
      [ -n "$rest" ] || fail "LLAMA_SERVER_EXTRA_ARGS ends in a backslash" "take it off, or write it twice"
      word=$word${rest%"${rest#?}"} rest=${rest#?} begun=yes
      ;;
    ,*) word=$word$char begun=yes ;;
  esac
done
[ -z "$quote" ] || fail "LLAMA_SERVER_EXTRA_ARGS has a $quote without its end" "close the quote, or write \\$quote"
[ -z "$begun" ] || set -- "$@" "$word"

# What the container was given goes to the end.
while [ "$given" -gt 0 ]; do
  first=$1
  shift
  set -- "$@" "$first"
  given=$((given - 1))
done
for word in "$@"; do
  case $word in
    --api-key | --api-key=*) fail "an API key among the arguments can be read by everybody on the host" \
      "set LLAMA_API_KEY, or mount a file and give --api-key-file" ;;
    -hft | --hf-token | --hf-token=*) fail "a token among the arguments can be read by everybody on the host" \
      "set LLAMA_HF_TOKEN" ;;
  esac
done
# By the environment, because a mirror's address may have a password in it.
if [ -n "$url" ]; then
  export LLAMA_ARG_MODEL_URL="$url"
  if [ -n "${HF_TOKEN:-}" ]; then
    # llama-server sends no token to an address, and its sister does: it fetches the file, reads the words in it, ends.
    llama-tokenize --model "$place" --prompt x >/dev/null &
    fetching=$!
    trap 'kill "$fetching" 2>/dev/null; exit 143' TERM INT
    wait "$fetching" || fail "$file of $repo at $revision cannot be fetched; what is said above tells why" \
      "check the names, the token, and that the hub answers from here"
    trap - TERM INT
    unset LLAMA_ARG_MODEL_URL
  fi
fi
exec llama-server "$@"
