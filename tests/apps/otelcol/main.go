// The OpenTelemetry Collector, with one way in, OTLP over HTTP, and one way out: a file with a line of JSON for each
// batch, whose name is in SPANS.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

type object = map[string]any

func main() {
	port, err := strconv.Atoi(os.Getenv("PORT"))
	must(err)
	if port == 0 {
		port = freePort()
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	config, err := json.Marshal(configuration(address, os.Getenv("SPANS")))
	must(err)
	receivers, err := receiver.MakeFactoryMap(otlpreceiver.NewFactory())
	must(err)
	exporters, err := exporter.MakeFactoryMap(fileexporter.NewFactory())
	must(err)
	command := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "otelcol"},
		Factories: otelcol.Factories{Receivers: receivers, Exporters: exporters},
	})
	command.SetArgs([]string{"--config=yaml:" + string(config)})
	go announce(address, port)
	must(command.Execute())
}

func configuration(address, file string) object {
	return object{
		"receivers": object{"otlp": object{"protocols": object{"http": object{"endpoint": address}}}},
		"exporters": object{"file": object{"path": file, "flush_interval": "100ms"}},
		"service": object{
			"telemetry": object{"metrics": object{"level": "none"}},
			"pipelines": object{"traces": object{
				"receivers": []string{"otlp"}, "exporters": []string{"file"},
			}},
		},
	}
}

// The collector does not say which port it was given if it was to choose.
func freePort() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func announce(address string, port int) {
	for {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
			fmt.Println("listening on", port)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
