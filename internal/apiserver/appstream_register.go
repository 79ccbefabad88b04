package apiserver

// appstreamOperations lists the AppStream operations that this server answers, each with its handler:
//
//	appstreamOp("DescribeStacks", s.describeStacks),
//
// An operation of the model that is not listed is refused as not implemented.
func (s *Server) appstreamOperations() []operation {
	return []operation{}
}
