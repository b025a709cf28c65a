module sipdialog.example/dialog/interop/ha

go 1.25.0

replace sipdialog.example/dialog => ../..

replace sipdialog.example/dialog/store/redis => ../../store/redis

require (
	github.com/redis/go-redis/v9 v9.22.0
	sipdialog.example/dialog v0.0.0
	sipdialog.example/dialog/store/redis v0.0.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/emiago/sipgo v1.7.3 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/pool v0.2.1 // indirect
	github.com/gobwas/ws v1.3.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/icholy/digest v1.2.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
