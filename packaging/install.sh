#!/bin/sh
# install.sh DEST SITE VERSION...: install below DEST what the .deb and the .rpm have in common. Run in the root of the
# sources, with the Python packages in SITE and the versions of Python that they support. Units, manual pages,
# sysusers.d, tmpfiles.d and the completion of zsh, whose directory differs, are left to the package's own tools.
set -eu
dest=$1 site=$2
shift 2
home=$dest/usr/lib/llama-orch
systemd=$dest/usr/lib/systemd
share=$dest/usr/share

install -d "$home/bin" "$home/lib/python3" "$systemd/system" "$dest/usr/bin" "$dest/etc/llama-orch/pools.d"
printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$home/pyvenv.cfg"
for version; do ln -s python3 "$home/lib/python$version"; done
cp -a "$site" "$home/lib/python3/site-packages"
# lists of files in another place
find "$home" -name RECORD -delete
ln -s lib/python3/site-packages/llama_orch/service/wake.py "$home/wake.py"
for command in queen-rbee pool-managerd engine-provisioner orchctl; do
	module=$(echo "$command" | tr - _)
	printf '#!/bin/sh\nexec /usr/lib/llama-orch/bin/python3 -I -m %s "$@"\n' "$module" >"$dest/usr/bin/$command"
	chmod 755 "$dest/usr/bin/$command"
done
install -Dm755 -t "$systemd/system-generators" units/llama-orch-generator
install -Dm644 -t "$systemd/system-preset" units/90-llama-orch.preset
install -Dm644 -t "$systemd/catalog" packaging/journal/llama-orch.catalog
install -Dm644 -t "$share/polkit-1/rules.d" packaging/polkit/50-llama-orch.rules
# The files can contain a token.
install -Dm640 -t "$dest/etc/llama-orch" packaging/env/*.env
install -Dm644 -t "$share/bash-completion/completions" packaging/completions/bash/*
install -Dm644 -t "$share/fish/vendor_completions.d" packaging/completions/fish/*
install -Dm644 -t "$share/llama-orch" packaging/pools.schema.json
install -Dm644 -t "$share/llama-orch/monitoring" packaging/monitoring/*.yml
install -Dm644 -t "$share/llama-orch/monitoring/grafana" packaging/monitoring/grafana/*.json
install -Dm644 -t "$share/doc/llama-orch/examples" packaging/examples/*
/usr/bin/python3 packaging/manual_html.py man "$share/doc/llama-orch/html"
# man finds llama-orch-units(7) by the name of each unit. The page itself is compressed by the package's tools.
install -d "$share/man/man7"
for unit in units/*.* units/llama-orch-generator; do
	case $unit in *.preset) continue ;; esac
	ln -s llama-orch-units.7.gz "$share/man/man7/${unit#units/}.7.gz"
done
